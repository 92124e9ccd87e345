"""`python -m lrmoclip`: the command line."""

import sys

from lrmoclip.cli.main import main

sys.exit(main())
