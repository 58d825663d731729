"""`python -m hybrid_encoder`: the command `hybrid-encoder`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
