"""Stage 1: trains a base model on a domain. A method is a point on five axes (objective, optimizer,
adapter, penalty, replay); each axis is read in one place below."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lrmoclip.core.candidates import Candidates
from lrmoclip.core.errors import UserError
from lrmoclip.core.losses import ewc_penalty
from lrmoclip.core.optim import MoClip
from lrmoclip.core.precision import autocast
from lrmoclip.core.store import CandidateStore
from lrmoclip.data.batches import Batch, Encoded, collate
from lrmoclip.data.order import grouped, indices, portions
from lrmoclip.methods.objectives import OBJECTIVES
from lrmoclip.train import sharding


@dataclass(frozen=True)
class Source:
    """Tokenised records and, for a restricted objective, the store of their candidate sets."""

    data: Encoded
    store: CandidateStore | None = None


class Part(NamedTuple):
    """What one forward pass of a step reads, and the share of its supervised positions in all of
    the step's."""

    batch: Batch
    sets: Candidates | None
    share: float


@dataclass
class Run:
    """One method at work on one model; `step()` takes one optimisation step.

    method: the five axes. settings: the scale's `stage1`. domain, general: where records come from
    (general for replay alone). fisher: by parameter name, for the penalty `ewc`. telemetry: also
    measure the gradient's norm and MoClip's angles, which `step_s` then includes. precision: of
    forward passes and losses.

    A step takes `batch_size` records, at most `micro_batch` of them in one forward pass; its loss
    is the mean over all their supervised positions. A denominator over a batch's union takes the
    union of one forward pass. Where torchrun started several processes, all build the same run,
    which shards the model over them, and each reads its share of a step's records.
    """

    model: torch.nn.Module
    method: dict
    settings: dict
    lr: float
    seed: int
    domain: Source
    general: Source | None = None
    fisher: dict[str, Tensor] | None = None
    telemetry: bool = True
    precision: str = "float32"
    taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)  # LoRA draws its start from the global generator
        self.dice = torch.Generator().manual_seed(self.seed)
        self.rank, self.ranks = sharding.place()
        if self.settings.get("gradient_checkpointing"):
            recompute_activations(self.model)
        self.model = adapted(self.model, self.method["adapter"]).train()
        if self.ranks > 1:
            # In the host's memory, for what is gathered in the end.
            self.unsharded = copy.deepcopy(self.model).cpu() if self.rank == 0 else None
            sharding.shard(self.model)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = build_optimizer(
            self.method["optimizer"], self.parameters.values(), self.lr, self.settings,
            self.telemetry,
        )  # fmt: skip
        knobs = dict(self.method["objective"])
        self.objective, self.knobs = OBJECTIVES[knobs.pop("name")], knobs
        self.strength = self.method["penalty"].get("strength", 0.0)
        if self.strength:
            self.anchor = {n: p.detach().clone() for n, p in self.parameters.items()}
            self.fisher = {
                n: sharding.shard_like(self.fisher[n], p) for n, p in self.parameters.items()
            }
        size = self.settings["batch_size"]
        # Replayed records come on top: the steps on the domain are the same for every method.
        self.steps = math.ceil(self.settings["epochs"] * len(self.domain.data) / size)
        self.streams = [(self.domain, self._order(self.domain.data, size))]
        if self.method["replay"]:
            extra = max(1, round(self.method["replay"] * size))
            self.streams.append((self.general, self._order(self.general.data, extra)))

    def _order(self, data: Encoded, size: int) -> Iterator[list[int]]:
        order = indices(len(data), size, self.seed)
        if self.settings.get("length_buckets"):
            return grouped(order, data.lengths, self.steps, self.seed)
        return order

    def step(self) -> dict[str, float]:
        """One optimisation step; returns loss, tokens, supervised (positions), step_s and, as
        telemetry, grad_norm and MoClip's clip_rate and median_angle (degrees)."""
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * schedule(self.taken, self.steps, self.settings["warmup"])
        parts, measures = self.draw()
        for batch, sets, share in parts:
            with autocast(self.precision, self.model.device, keep=False):
                loss = share * self.objective(self.model, batch, sets, self.dice, **self.knobs)
            (loss * self.ranks).backward()  # FSDP takes the mean of the processes' gradients
            measures["loss"] += loss.item()
        if self.strength:
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
            measures |= angle_measures(self.optimizer)
        return measures | {"step_s": time.perf_counter() - start}

    def draw(self) -> tuple[list[Part], dict[str, float]]:
        """The next records of the domain and, for replay, general ones, as the forward passes of
        this process; and the loss, zero yet, with the whole step's tokens and supervised positions.

        Each pass is padded to its own length, and none mixes the two: short domain records would
        be padded to the longest general one.
        """
        chosen = [(source, next(stream)) for source, stream in self.streams]
        supervised = sum(source.data.supervised[drawn].sum().item() for source, drawn in chosen)
        tokens = sum(source.data.lengths[i] for source, drawn in chosen for i in drawn)
        most = self.settings.get("micro_batch")
        parts = [
            self._part(source, portion or drawn[:1], supervised if portion else math.inf)
            for source, drawn in chosen
            for portion in portions(drawn, source.data.lengths, most, self.rank, self.ranks)
        ]
        return parts, {"loss": 0.0, "supervised": supervised, "tokens": tokens}

    def _part(self, source: Source, chosen: list[int], supervised: float) -> Part:
        device = self.model.device
        sets = source.store.batch(chosen).to(device) if source.store else None
        batch = collate(source.data, chosen).to(device)
        return Part(batch, sets, len(batch.gold) / supervised)

    def penalty(self) -> Tensor:
        """EWC's penalty on what of the parameters lies in this process."""
        mine = [
            {name: sharding.local(tensor) for name, tensor in tensors.items()}
            for tensors in (self.parameters, self.anchor, self.fisher)
        ]
        return ewc_penalty(*mine, self.strength)

    def merged(self):
        """The model as an ordinary checkpoint: adapters are folded into the weights. Of a sharded
        run, every process must ask, and rank 0 alone is given the model."""
        model = self._gathered() if self.ranks > 1 else self.model
        merge = getattr(model, "merge_and_unload", None)
        return merge() if merge else model

    @torch.no_grad()
    def _gathered(self):
        places = dict(self.unsharded.named_parameters()) if self.rank == 0 else {}
        for name, parameter in self.parameters.items():
            value = sharding.whole(parameter)
            if self.rank == 0:
                places[name].copy_(value)
        return self.unsharded


def train(run: Run, probe=None, checkpoint=None) -> list[dict[str, float]]:
    """All steps of a run; returns a row of measures a step. Those of `probe` (a `ProbeBatch`) stand
    in the row of the step before which they were taken; after the last step is one row more.

    checkpoint: a `resume.Checkpoint`, from which a run that died goes on.
    """
    every, steps = run.settings["probe_every"], run.steps
    rows = checkpoint.restore(run) if checkpoint else []
    for step in tqdm(
        range(run.taken, steps + 1), desc="stage 1", mininterval=5, initial=run.taken,
        total=steps + 1, disable=run.rank > 0,
    ):  # fmt: skip
        row = {"step": step}
        if probe and (step % every == 0 or step == steps):
            start = time.perf_counter()
            row |= probe.measure(run.model)
            row["probe_s"] = time.perf_counter() - start
        if step < steps:
            row |= run.step()
            if not math.isfinite(row["loss"]):
                raise UserError(
                    f"the loss is {row['loss']} at step {step}", "Lower the learning rate"
                )
        rows.append(row)
        if checkpoint and step < steps:
            checkpoint.step_taken(run, rows)
    return rows


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate: a linear rise over the share `warmup` of the steps, then a
    linear fall to zero."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))


def recompute_activations(model) -> None:
    """Keep each decoder layer's input alone, and run the layer again in the backward pass."""
    # transformers is about to rename it.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def adapted(model, adapter: dict):
    """The model, with trainable low-rank adapters on every linear layer of its body for `lora`
    (Hu et al. 2021, https://arxiv.org/abs/2106.09685, by peft)."""
    if adapter["name"] == "none":
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter["rank"], lora_alpha=adapter["alpha"], target_modules="all-linear", lora_dropout=0
    )
    return get_peft_model(model, config)


def build_optimizer(axis: dict, parameters, lr: float, settings: dict, track_angles: bool):
    """The optimizer named on a method's axis, with the scale's betas and weight decay."""
    common = {"betas": tuple(settings["betas"]), "weight_decay": settings["weight_decay"]}
    knobs = {k: v for k, v in axis.items() if k != "name"}
    if axis["name"] == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, fused=True, **common, **knobs)
    return MoClip(parameters, lr=lr, track_angles=track_angles, **common, **knobs)


def angle_measures(optimizer) -> dict[str, float]:
    """MoClip's share of tensors clipped and median gradient-momentum angle of the last step."""
    if not isinstance(optimizer, MoClip):
        return {}
    [seen] = optimizer.angle_statistics(quantiles=(0.5,))
    if not seen["tensors"]:
        return {}
    return {"clip_rate": seen["clip_rate"], "median_angle": seen["quantiles"][0]}
