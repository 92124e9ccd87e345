"""Stage 1: trains a base model on a domain. A method is a point on five axes (objective, optimizer,
adapter, penalty, replay); each axis is read in one place below."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from lrmoclip.batches import Batch, Encoded, collate
from lrmoclip.candidates import Candidates
from lrmoclip.errors import UserError
from lrmoclip.losses import ewc_penalty
from lrmoclip.objectives import OBJECTIVES
from lrmoclip.optim import MoClip
from lrmoclip.store import CandidateStore


@dataclass(frozen=True)
class Source:
    """Tokenised records and, for a restricted objective, the store of their candidate sets."""

    data: Encoded
    store: CandidateStore | None = None


@dataclass
class Run:
    """One method at work on one model; `step()` takes one optimisation step.

    method: the five axes. settings: the scale's `stage1`. domain, general: where records come from
    (general for replay alone). fisher: by parameter name, for the penalty `ewc`. telemetry: also
    measure the gradient's norm and MoClip's angles, which `step_s` then includes.
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
    taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)  # LoRA draws its start from the global generator
        self.dice = torch.Generator().manual_seed(self.seed)
        self.model = adapted(self.model, self.method["adapter"]).train()
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = build_optimizer(
            self.method["optimizer"], self.parameters.values(), self.lr, self.settings,
            self.telemetry,
        )  # fmt: skip
        knobs = dict(self.method["objective"])
        self.objective, self.knobs = OBJECTIVES[knobs.pop("name")], knobs
        self.strength = self.method["penalty"].get("strength", 0.0)
        self.anchor = {n: p.detach().clone() for n, p in self.parameters.items() if self.strength}
        size = self.settings["batch_size"]
        # Replayed records come on top: the steps on the domain are the same for every method.
        self.steps = math.ceil(self.settings["epochs"] * len(self.domain.data) / size)
        self.streams = [(self.domain, indices(len(self.domain.data), size, self.seed))]
        if self.method["replay"]:
            extra = round(self.method["replay"] * size)
            self.streams.append((self.general, indices(len(self.general.data), extra, self.seed)))

    def step(self) -> dict[str, float]:
        """One optimisation step; returns loss, tokens, supervised (positions), step_s and, as
        telemetry, grad_norm and MoClip's clip_rate and median_angle (degrees)."""
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * schedule(self.taken, self.steps, self.settings["warmup"])
        parts = self.draw()
        supervised = sum(len(batch.gold) for batch, _ in parts)
        measures = {"loss": 0.0, "supervised": supervised, "tokens": 0}
        for batch, sets in parts:
            share = len(batch.gold) / supervised  # the mean over all parts, not a mean of means
            loss = share * self.objective(self.model, batch, sets, self.dice, **self.knobs)
            loss.backward()
            measures["loss"] += loss.item()
            measures["tokens"] += int((batch.input_ids != self.domain.data.pad_id).sum())
        if self.strength:
            penalty = ewc_penalty(self.parameters, self.anchor, self.fisher, self.strength)
            penalty.backward()
            measures["loss"] += penalty.item()
        if self.telemetry:
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            measures["grad_norm"] = float(torch.nn.utils.get_total_norm(gradients))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.taken += 1
        if self.telemetry:
            measures |= angle_measures(self.optimizer)
        return measures | {"step_s": time.perf_counter() - start}

    def draw(self) -> list[tuple[Batch, Candidates | None]]:
        """The next batch of the domain and, for replay, one of general records, with their sets.

        Each is padded to its own length: one batch of both would pad short domain records to the
        longest general one.
        """
        drawn = []
        for source, stream in self.streams:
            chosen = next(stream)
            sets = source.store.batch(chosen).to(self.model.device) if source.store else None
            drawn.append((collate(source.data, chosen).to(self.model.device), sets))
        return drawn

    def merged(self):
        """The model as an ordinary checkpoint: adapters are folded into the weights."""
        merge = getattr(self.model, "merge_and_unload", None)
        return merge() if merge else self.model


def train(run: Run, probe=None) -> list[dict[str, float]]:
    """All steps of a run; returns a row of measures a step. Those of `probe` (a `ProbeBatch`) stand
    in the row of the step before which they were taken; after the last step is one row more."""
    every, steps = run.settings["probe_every"], run.steps
    rows = []
    for step in tqdm(range(steps + 1), desc="stage 1", mininterval=5):
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
    return rows


def indices(records: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of record indices: shuffled passes, joined without a gap."""
    dice = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch_size:
            waiting += torch.randperm(records, generator=dice).tolist()
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate: a linear rise over the share `warmup` of the steps, then a
    linear fall to zero."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))


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
