"""The devices that the plan predicts for, as workflow/config/devices.yaml states them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import Count, NotNegative, Positive, PositiveShare, Text, Typed, read_yaml


class ByPrecision(Typed):
    float32: Positive
    bfloat16: Positive


class Achieved(Typed):
    float32: PositiveShare
    bfloat16: PositiveShare


class Sources(Typed):
    """Where the figures are from."""

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    peak: Text
    achieved: Text
    memory: Text
    price: Text


class Device(Typed):
    """One device. GB are 1e9 bytes, rates FLOP/s (dense) and bytes/s."""

    label: Text
    kind: Literal["cpu", "cuda"]
    memory_gb: Positive
    reserved_gb: NotNegative
    peak_flops: ByPrecision
    achieved: Achieved
    bandwidth: Positive
    link: Positive
    launch_s: NotNegative
    usd_per_hour: Positive
    sources: Sources
    cores: Count = 1

    def precision(self, asked: str) -> str:
        """What it computes in: for `auto`, bfloat16 on a GPU."""
        fast = "bfloat16" if self.kind == "cuda" else "float32"
        return fast if asked == "auto" else asked


class DevicesFile(Typed):
    devices: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Device], Field(min_length=1)
    ]


def load(path: Path) -> dict[str, Device]:
    """The devices of a file, by name. UserError for the first thing that is wrong."""
    return read_yaml(path, DevicesFile).devices


def named(devices: dict[str, Device], name: str) -> Device:
    """The device of that name. UserError with the names there are."""
    if name not in devices:
        raise UserError(f"unknown device {name!r}", f"Known: {', '.join(devices)}")
    return devices[name]
