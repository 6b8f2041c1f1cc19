"""``python -m fastnt``."""

from fastnt.cli import main

if __name__ == "__main__":
    main()
