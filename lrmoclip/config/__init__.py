"""A scale and the devices, as workflow/config/ describes them."""

from lrmoclip.config.chosen import known, load_chosen
from lrmoclip.config.scale import Scale, fingerprint, load, resolved, write_chosen

__all__ = ["Scale", "fingerprint", "known", "load", "load_chosen", "resolved", "write_chosen"]
