"""`python -m myoloop` is the `myoloop` command."""

from myoloop.cli import main

if __name__ == "__main__":
    main()
