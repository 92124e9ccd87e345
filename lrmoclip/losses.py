"""The restricted loss, and a probe of the full softmax (`lrmoclip.core.losses`)."""

from lrmoclip.core.losses import Probe, probe, restricted_linear_cross_entropy

__all__ = ["Probe", "probe", "restricted_linear_cross_entropy"]
