"""`python -m clipsearch` is `clipsearch`."""

from .cli import main

if __name__ == "__main__":
    main()
