"""`python -m lrmoclip`: the command line."""

import sys

from lrmoclip.cli import main

sys.exit(main())
