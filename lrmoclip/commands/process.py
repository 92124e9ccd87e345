"""What every command asks of its own process."""

import resource

from lrmoclip.errors import UserError


def check_numbers(**lists: list) -> None:
    if len({len(values) for values in lists.values()}) > 1:
        names = ", ".join(f"--{name}" for name in lists)
        raise UserError(f"{names} differ in number", "Name one of each a run")


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
