"""What tests share and no test is."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the checkout
