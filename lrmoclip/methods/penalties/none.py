"""Nothing is added."""

from typing import Literal

from lrmoclip.methods.axes import Penalty


class NoPenalty(Penalty):
    name: Literal["none"] = "none"
