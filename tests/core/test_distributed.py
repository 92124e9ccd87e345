"""MoClip under DDP and FSDP2, in two processes, against one process with the whole batch.

The processes meet through a file and talk over the loopback device; each case of `CASES` runs in
both of them, and what rank 0 returns is compared here. Row counts are odd or one, so that shards
are uneven and some empty.
"""

import os
import time
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.distributed import all_reduce, destroy_process_group, init_process_group
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

from lrmoclip.core import angles
from lrmoclip.core.optim import MoClip

RANKS, STEPS, SECONDS = 2, 6, 60
SETTINGS = {"lr": 0.05, "max_angle": 60, "betas": (0.6, 0.9), "weight_decay": 0.1}


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)
    ).to(dtype)


def batch(step, dtype=torch.float64):
    rng = torch.Generator().manual_seed(step)
    x = torch.randn(8, 6, generator=rng, dtype=torch.float64)
    return x.to(dtype), x.prod(dim=1, keepdim=True).to(dtype)


def train(model, opt, steps, rank=0, ranks=1):
    """The loss over the whole batch at each step; a rank sees its share of it."""
    losses = []
    dtype = next(model.parameters()).dtype
    for step in steps:
        x, y = (part[rank::ranks] for part in batch(step, dtype))
        opt.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        opt.step()
        loss = loss.detach() / ranks
        if ranks > 1:
            all_reduce(loss)
        losses.append(loss)
    return torch.stack(losses)


def whole(model):
    state = {name.removeprefix("module."): x for name, x in model.state_dict().items()}
    return {n: x.full_tensor() if isinstance(x, DTensor) else x for n, x in state.items()}


def results(model, opt, rank=0, ranks=1):
    with recorded_sums() as sums:
        losses = train(model, opt, range(STEPS), rank, ranks)
    return {
        "losses": losses,
        "weights": whole(model),
        "angles": torch.tensor(opt.last_angles),
        "sums": torch.tensor(sums, dtype=torch.float64),
    }


@contextmanager
def recorded_sums():
    """The sums that the angles are made from, in order. An angle does not change if all of them
    double, so copies that are counted twice show here and nowhere else."""
    kept, sums = [], angles._sums

    def record(*given):
        rows = sums(*given)
        kept.extend(x for row in rows for x in row)
        return rows

    angles._sums = record
    try:
        yield kept
    finally:
        angles._sums = sums


def one_process(dtype=torch.float64, **settings):
    model = network(dtype)
    opt = MoClip(model.parameters(), **SETTINGS, **settings)
    return results(model, opt)


def sharded(mesh=None, dtype=torch.float64, **settings):
    model = network(dtype)
    for layer in (model[0], model[3]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, MoClip(model.parameters(), **SETTINGS, **settings)


def ddp(rank):
    model = DistributedDataParallel(network())
    opt = MoClip(model.parameters(), **SETTINGS)
    return results(model, opt, rank, RANKS)


def fsdp(rank):
    model, opt = sharded()
    return results(model, opt, rank, RANKS)


def fsdp_with_replicas(rank):
    model, opt = sharded(init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("copies", "shards")))
    return results(model, opt, rank, RANKS)


def fsdp_by_local_angles(rank):
    """What a forgotten all-reduce would do."""
    reduce, angles._all_reduced = angles._all_reduced, lambda rows, *_: rows
    try:
        return fsdp(rank)
    finally:
        angles._all_reduced = reduce


def collectives(rank):
    model, opt = sharded()
    train(model, opt, range(3), rank, RANKS)
    with CommDebugMode() as seen:
        opt.step()
    rows = {p.shape[0] for p in model.parameters() if isinstance(p, DTensor)}
    return {"count": seen.get_total_counts(), "rows": rows}


def resumed(rank):
    model, opt = sharded(dtype=torch.bfloat16, state_dtype=torch.float32)
    train(model, opt, range(3), rank, RANKS)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    saved = deepcopy(get_optimizer_state_dict(model, opt, options=options))
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    train(model, opt, range(3, STEPS), rank, RANKS)

    again, fresh = sharded(dtype=torch.bfloat16, state_dtype=torch.float32)
    again.load_state_dict(weights)
    set_optimizer_state_dict(again, fresh, saved if rank == 0 else {}, options=options)
    kinds = {x.dtype for state in fresh.state.values() for x in state.values()}
    train(again, fresh, range(3, STEPS), rank, RANKS)
    return {"undisturbed": whole(model), "resumed": whole(again), "dtypes": kinds}


def partial_gradient(rank):
    mesh = init_device_mesh("cpu", (RANKS,))
    rng = torch.Generator().manual_seed(0)
    start, *grads = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(4))
    p = nn.Parameter(distribute_tensor(start, mesh, [Shard(0)]))
    q = nn.Parameter(start.clone())
    ours, theirs = MoClip([p], **SETTINGS), MoClip([q], **SETTINGS)
    for g in grads:
        share = g.cos() if rank == 0 else g - g.cos()
        p.grad = DTensor.from_local(share, mesh, [Partial()], run_check=False)
        q.grad = g
        ours.step()
        theirs.step()
    return {"ours": p.detach().full_tensor(), "theirs": q.detach()}


CASES = [
    ddp,
    fsdp,
    fsdp_with_replicas,
    fsdp_by_local_angles,
    collectives,
    resumed,
    partial_gradient,
]


def work(rank, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=SECONDS),
    )
    found = {case.__name__: case(rank) for case in CASES}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each case returned on rank 0; processes that hang are ended, and their errors shown."""
    folder = tmp_path_factory.mktemp("ranks")
    running = torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS, join=False)
    deadline = time.monotonic() + SECONDS
    try:
        while not running.join(timeout=1):
            assert time.monotonic() < deadline, "the processes hang"
    finally:
        for process in running.processes:
            process.kill()
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", [ddp, fsdp, fsdp_with_replicas])
def test_many_processes_train_like_one(found, case):
    want = one_process()

    torch.testing.assert_close(found[case.__name__], want, rtol=1e-9, atol=1e-9)
    assert (want["angles"] > SETTINGS["max_angle"]).float().mean() > 0.3  # the cap is at work


def test_angles_of_shards_alone_would_train_otherwise(found):
    want, got = one_process(), found["fsdp_by_local_angles"]

    assert (got["losses"] - want["losses"]).abs().max() > 1e-3


def test_all_sums_of_a_step_travel_together(found):
    seen = found["collectives"]

    assert seen["rows"] == {1, 5, 7}  # shards of 1 and none, 3 and 2, 4 and 3 rows
    assert 1 <= seen["count"] <= 2  # the second for those that are read again


def test_a_sharded_run_resumes_to_the_same_bits(found):
    seen = found["resumed"]

    torch.testing.assert_close(seen["resumed"], seen["undisturbed"], rtol=0, atol=0)
    assert seen["dtypes"] == {torch.float32}


def test_a_gradient_that_is_not_yet_summed_is_summed(found):
    seen = found["partial_gradient"]

    torch.testing.assert_close(seen["ours"], seen["theirs"], rtol=1e-12, atol=1e-15)
