"""Devices as `workflow/config/devices.yaml` states them, and the memory that is free here."""

import os
from dataclasses import dataclass
from pathlib import Path

from lrmoclip.config.scale import as_written
from lrmoclip.config.schema import DevicesFile
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import read_yaml

CPU = "this machine"  # in words


@dataclass(frozen=True)
class Device:
    """One device. Memory in bytes, rates in FLOP/s and bytes/s; `flops` by precision is what
    matrix products of a training step reach, not the peak."""

    name: str
    cuda: bool
    memory: float
    reserved: float
    flops: dict[str, float]
    bandwidth: float
    link: float
    launch_s: float
    usd_per_hour: float
    cores: int = 1

    @property
    def usable(self) -> float:
        """Bytes for tensors."""
        return self.memory - self.reserved

    @property
    def room(self) -> float:
        """Bytes that predicted tensors may fill. The rest is lost between them: a tenth on a GPU
        (assumed), more in a process, whose memory was up to 1 / 0.65 of the prediction."""
        return (0.9 if self.cuda else 0.65) * self.usable

    def rate(self, precision: str, threads: int) -> float:
        """FLOP/s of a job; on a CPU of so many threads, each a core."""
        share = 1.0 if self.cuda else min(threads, self.cores) / self.cores
        return share * self.flops[precision]


def load(path: Path) -> dict[str, Device]:
    """The devices of a file, by name. Raises UserError for the first thing that is wrong."""
    return {
        name: Device(
            name=name,
            cuda=said["kind"] == "cuda",
            memory=said["memory_gb"] * 1e9,
            reserved=said["reserved_gb"] * 1e9,
            flops={key: said["achieved"][key] * peak for key, peak in said["peak_flops"].items()},
            bandwidth=said["bandwidth"],
            link=said["link"],
            launch_s=said["launch_s"],
            usd_per_hour=said["usd_per_hour"],
            cores=said.get("cores", 1),
        )
        for name, said in as_written(read_yaml(path, DevicesFile))["devices"].items()
    }


def named(devices: dict[str, Device], name: str) -> Device:
    """The device of that name. Raises UserError with the names there are."""
    if name not in devices:
        raise UserError(f"unknown device {name!r}", f"Known: {', '.join(devices)}")
    return devices[name]


def free_memory() -> tuple[float, str]:
    """Bytes that are free now on the device that computes, and the device in words."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]), torch.cuda.get_device_name()
    return float(psutil.virtual_memory().available), CPU


def world_size() -> int:
    """Processes that share a run, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))
