"""One run on several devices: FSDP2 shards weights, gradients and moments over the processes that
torchrun started. Everything here is also true of one process, where nothing happens."""

import atexit
import os
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

PATIENCE = timedelta(days=1)  # of processes that wait while one of them scores a model


def join() -> None:
    """Meet the other processes of a torchrun, if this is one of several."""
    if asked() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
    )
    atexit.register(dist.destroy_process_group)


def place() -> tuple[int, int]:
    """This process's rank and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def shard(model: nn.Module) -> None:
    """Shard a causal LM in place: each decoder layer by itself, the rest with the root, which holds
    the vocabulary projection and stays whole after a forward pass."""
    from torch.distributed.fsdp import fully_shard

    owner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = [m for m in model.modules() if type(m).__name__ in owner._no_split_modules]
    for module in [*layers, model]:
        fully_shard(module)


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process; differentiable."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered from all processes if it is sharded; each of them must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same in every process, sharded as `other` of that shape is."""
    if not hasattr(other, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def total(value: float) -> float:
    """The sum of every process's value."""
    if place()[1] == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.item()


def everyone(value) -> list:
    """Each process's value, by rank; they wait for one another here."""
    ranks = place()[1]
    if ranks == 1:
        return [value]
    values = [None] * ranks
    dist.all_gather_object(values, value)
    return values


def asked() -> int:
    """How many processes torchrun started, before they have met."""
    return int(os.environ.get("WORLD_SIZE", "1"))
