"""What every command asks of its own process."""

import os
import resource
from pathlib import Path

from lrmoclip.core.errors import UserError

LARGEST_SEED = 2**31 - 1  # what every generator that is seeded takes


def check_runs(seeds: list[int], outs: list[Path], **lists: list) -> None:
    """Refuse lists of another number than there are seeds, a seed or a folder given twice, and a
    seed that no generator takes."""
    for name, values in {"outs": outs, **lists}.items():
        if len(values) != len(seeds):
            raise UserError(f"--seeds, --{name} differ in number", "Name one of each a run")
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"--seeds: {seed}", f"Allowed: whole numbers from 0 to {LARGEST_SEED}")
    for name, values in {"seeds": seeds, "outs": [os.path.realpath(out) for out in outs]}.items():
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"--{name}: {twice[0]} stands twice", "Name each once")


def set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def peak_memory_mb() -> float:
    """Peak of the device's allocator, or of this process's resident memory on a CPU, in MB.

    A high-water mark: of the seeds that one process trains, a later one shows earlier peaks, too.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
