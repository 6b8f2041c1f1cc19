"""``python -m fastnt`` and the program ``fastnt``."""

import sys

from fastnt.output import guarded_output


def main() -> None:
    """Run the command line, with an output that cannot fail it; see ``fastnt.cli.main``."""
    with guarded_output():
        try:
            from fastnt.cli import main as run

            run()
        except KeyboardInterrupt:  # while it is imported
            print("fastnt: interrupted", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
