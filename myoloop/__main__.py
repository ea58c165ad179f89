"""`python -m myoloop` is the `myoloop` command."""

import sys

try:
    from myoloop.cli import main
except KeyboardInterrupt:  # while it loads
    sys.exit(130)

if __name__ == "__main__":
    main()
