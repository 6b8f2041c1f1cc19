"""The benchmark cases, the rivals, how they are timed, and the picture; ``benchmarks/`` drives them."""
