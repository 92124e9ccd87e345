"""All weights are trained."""

from typing import Literal

from lrmoclip.methods.axes import Adapter


class NoAdapter(Adapter):
    name: Literal["none"] = "none"
