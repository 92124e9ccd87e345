"""Stage 1: one method at work on one base model and domain. What a method is, its entries on the
axes know (`lrmoclip.methods`); here is what all share: records, steps, the rate's course."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrmoclip.config.parts import Stage1
from lrmoclip.core import sharding
from lrmoclip.core.candidates import Candidates
from lrmoclip.core.errors import UserError
from lrmoclip.core.precision import autocast
from lrmoclip.core.store import CandidateStore
from lrmoclip.data.batches import Batch, Encoded, collate
from lrmoclip.data.order import grouped, indices, portions
from lrmoclip.methods import Method
from lrmoclip.methods.axes import Context, Loss
from lrmoclip.train.sets import Collected, collect_again, read_at, statistics


class Diverged(UserError):
    """Training whose loss is no number any more: a finding about its learning rate."""


@dataclass(frozen=True)
class TrainingSet:
    """Tokenised records and, for an objective that needs it, the store of their candidate sets.
    fresh: sets that were collected since, and are read in place of the store's."""

    data: Encoded
    store: CandidateStore | None = None
    fresh: Collected | None = None

    def sets(self, chosen: list[int], device: torch.device) -> Candidates | None:
        store = self.fresh or self.store
        return store.batch(chosen).to(device) if store else None


class Pass(NamedTuple):
    """What one forward pass of a step reads, and the share of its supervised positions in all of
    the step's."""

    batch: Batch
    sets: Candidates | None
    share: float


@dataclass
class Run:
    """A method at work; made by `start`. `step()` takes one optimisation step.

    A step takes `batch_size` records, at most `micro_batch` of them in one forward pass; its loss
    is the mean over all their supervised positions. A denominator over a batch's union takes the
    union of one forward pass. Where torchrun started several processes, all build the same run,
    which shards the model over them, and each reads its share of a step's records.
    """

    model: nn.Module
    unsharded: nn.Module | None  # rank 0's copy in the host's memory, for what is gathered
    base: nn.Module | None  # frozen, where the objective needs it
    method: Method
    settings: Stage1
    precision: str
    telemetry: bool
    parameters: dict[str, nn.Parameter]  # those that are trained
    optimizer: torch.optim.Optimizer
    loss: Loss
    penalty: Callable[[], Tensor] | None
    streams: list[tuple[TrainingSet, Iterator[list[int]]]]
    steps: int
    dice: torch.Generator
    rank: int
    ranks: int
    taken: int = 0

    @property
    def domain(self) -> TrainingSet:
        return self.streams[0][0]

    def step(self) -> dict[str, float]:
        """One optimisation step; returns loss, tokens, supervised (positions), step_s and, as
        telemetry, grad_norm and what the optimizer reports."""
        start = time.perf_counter()
        factor = schedule(self.taken, self.steps, self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        passes, measures = self.draw()
        for batch, sets, share in passes:
            with autocast(self.precision, self.model.device, keep=False):
                loss = share * self.loss.of(Context(self.model, batch, sets, self.base, self.dice))
            (loss * self.ranks).backward()  # FSDP takes the mean of the processes' gradients
            measures["loss"] += loss.item()
        if self.penalty:
            penalty = self.penalty()
            penalty.backward()
            measures["loss"] += penalty.item()
        measures["loss"] = sharding.total(measures["loss"])
        if self.telemetry:
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            measures["grad_norm"] = float(sharding.whole(norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.taken += 1
        if self.telemetry:
            measures |= self.method.optimizer.measures(self.optimizer)
        return measures | {"step_s": time.perf_counter() - start}

    def begins_epoch(self) -> bool:
        """Whether the next step is the first one that begins in another pass over the domain."""
        size, records = self.settings.batch_size, len(self.domain.data)
        return self.taken > 0 and self.taken * size // records > (self.taken - 1) * size // records

    def refresh(self) -> dict[str, float]:
        """Collect all sets again, with the model as it is, at the settings at which their store is
        read. Returns refresh_s, refreshed_tokens (that were read) and set_size_mean, the domain's
        sets as the objective sees them."""
        start = time.perf_counter()
        for place, (source, stream) in enumerate(self.streams):
            settings = read_at(source.store)
            fresh = collect_again(self.model, source.data, settings, self.precision)
            self.streams[place] = replace(source, fresh=fresh), stream
        return {
            "refresh_s": time.perf_counter() - start,
            "refreshed_tokens": sum(source.data.tokens for source, _ in self.streams),
            "set_size_mean": statistics(self.domain, self.loss)["set_size_mean"],
        }

    def draw(self) -> tuple[list[Pass], dict[str, float]]:
        """The next records of the domain and, for replay, general ones, as the forward passes of
        this process; and the loss, zero yet, with the whole step's tokens and supervised positions.

        Each pass is padded to its own length, and none mixes the two: short domain records would
        be padded to the longest general one.
        """
        chosen = [(source, next(stream)) for source, stream in self.streams]
        supervised = sum(source.data.supervised[drawn].sum().item() for source, drawn in chosen)
        tokens = sum(source.data.lengths[i] for source, drawn in chosen for i in drawn)
        passes = [
            self._pass(source, portion or drawn[:1], supervised if portion else math.inf)
            for source, drawn in chosen
            for portion in portions(
                drawn, source.data.lengths, self.settings.micro_batch, self.rank, self.ranks
            )
        ]
        return passes, {"loss": 0.0, "supervised": supervised, "tokens": tokens}

    def _pass(self, source: TrainingSet, chosen: list[int], supervised: float) -> Pass:
        device = self.model.device
        batch = collate(source.data, chosen).to(device)
        return Pass(batch, source.sets(chosen, device), len(batch.gold) / supervised)

    def merged(self) -> nn.Module | None:
        """The model as an ordinary checkpoint: adapters are folded into the weights. Of a sharded
        run, every process must ask, and rank 0 alone is given the model."""
        model = self._gathered() if self.ranks > 1 else self.model
        merge = getattr(model, "merge_and_unload", None)
        return merge() if merge else model

    @torch.no_grad()
    def _gathered(self) -> nn.Module | None:
        places = dict(self.unsharded.named_parameters()) if self.rank == 0 else {}
        for name, parameter in self.parameters.items():
            value = sharding.whole(parameter)
            if self.rank == 0:
                places[name].copy_(value)
        return self.unsharded


def start(
    model: nn.Module,
    method: Method,
    settings: Stage1,
    *,
    lr: float,
    seed: int,
    domain: TrainingSet,
    general: TrainingSet | None = None,
    fisher: dict[str, Tensor] | None = None,
    base: nn.Module | None = None,
    telemetry: bool = True,
    precision: str = "float32",
) -> Run:
    """A run of `method` from a base model, which it changes.

    general: records of general text, for a method with replay. fisher: by parameter name, for a
    penalty that needs it. base: the same model once more, which stays as it is, for an objective
    that needs it. telemetry: also measure the gradient's norm and what the optimizer
    reports, which `step_s` then includes. precision: of forward passes and losses.
    """
    torch.manual_seed(seed)  # an adapter draws its start from the global generator
    dice = torch.Generator().manual_seed(seed)
    rank, ranks = sharding.place()

    if settings.gradient_checkpointing:
        recompute_activations(model)
    model, unsharded = method.adapter.apply(model).train(), None
    if ranks > 1:
        unsharded = copy.deepcopy(model).cpu() if rank == 0 else None
        for sharded in filter(None, (model, base)):
            sharding.shard(sharded)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    betas, decay = tuple(settings.betas), settings.weight_decay
    optimizer = method.optimizer.build(
        model, parameters, lr=lr, betas=betas, weight_decay=decay, telemetry=telemetry
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    penalty = method.penalty.start(parameters, fisher)

    # Replayed records come on top: the steps on the domain are the same for every method.
    size = settings.batch_size
    steps = math.ceil(settings.epochs * len(domain.data) / size)
    sources = [(domain, size)]
    if method.replay:
        supervised = [source.data.supervised.double().mean().item() for source in (domain, general)]
        replayed = method.replayed(size, *supervised)
        sources.append((general, replayed))
    loss = method.objective.start([source.data for source, _ in sources])
    streams = [(source, _order(source.data, n, steps, seed, settings)) for source, n in sources]
    return Run(
        model, unsharded, base and base.eval(), method, settings, precision, telemetry, parameters,
        optimizer, loss, penalty, streams, steps, dice, rank, ranks,
    )  # fmt: skip


def _order(
    data: Encoded, size: int, steps: int, seed: int, settings: Stage1
) -> Iterator[list[int]]:
    order = indices(len(data), size, seed)
    return grouped(order, data.lengths, steps, seed) if settings.length_buckets else order


def train(run: Run, probe=None, state=None) -> list[dict[str, float]]:
    """All steps of a run; returns a row of measures a step. Those of `probe` (a `ProbeBatch`) stand
    in the row of the step before which they were taken; after the last step is one row more.

    state: a `run_state.RunState`, from which a run that died goes on. Raises Diverged.
    """
    every, steps = run.settings.probe_every, run.steps
    rows = state.restore(run) if state else []
    for step in tqdm(
        range(run.taken, steps + 1), desc="stage 1", mininterval=5, initial=run.taken,
        total=steps + 1, disable=run.rank > 0,
    ):  # fmt: skip
        row = {"step": step}
        if probe and (step % every == 0 or step == steps):
            begun = time.perf_counter()
            row |= probe.measure(run)
            row["probe_s"] = time.perf_counter() - begun
        if step < steps:
            if run.method.objective.refreshes and run.begins_epoch():
                row |= run.refresh()
            row |= run.step()
            if not math.isfinite(row["loss"]):
                raise Diverged(
                    f"the loss is {row['loss']} at step {step}", "Lower the learning rate"
                )
        rows.append(row)
        if state and step < steps:
            state.step_taken(run, rows)
    if not all(sharding.local(p).isfinite().all() for p in run.parameters.values()):
        raise Diverged("the trained weights are not finite", "Lower the learning rate")
    return rows


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate: a linear rise over the share `warmup` of the steps, then a
    linear fall to zero."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))


def recompute_activations(model: nn.Module) -> None:
    """Keep each decoder layer's input alone, and run the layer again in the backward pass."""
    # transformers is about to rename it.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
