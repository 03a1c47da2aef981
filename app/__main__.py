"""`python -m app` is `lorat`; with no command it serves."""

import sys

from app.cli import main

sys.exit(main(sys.argv[1:] or ["serve"]))
