"""`python -m miram.cli`."""

import sys

from miram.cli import main

sys.exit(main())
