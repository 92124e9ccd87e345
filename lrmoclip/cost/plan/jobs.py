"""What one job of a scale takes on a device: seconds, memory, disk.

A pass over records takes as long as its FLOPs (`cost.flops`) at the rate that matrix products
reach, the start of each layer's operations, and what the loss moves through memory; a step also
what its optimizer moves, and of GPUs that share a model not less than FSDP2's gathers and scatters
of the weights. Several GPUs and vLLM were never measured: with either, a plan is a guess."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lrmoclip.config import Scale
from lrmoclip.config.device import Device
from lrmoclip.config.parts import Scratch
from lrmoclip.cost import flops
from lrmoclip.cost.plan.workload import Load, Workload
from lrmoclip.cost.stopwatch import FISHER_CHUNK
from lrmoclip.methods import Method, Need
from lrmoclip.models.shapes import FLOAT, WORKING, Shape
from lrmoclip.train import memory
from lrmoclip.train.workbench import REPLAY

FULL = Method(label="full fine-tuning")
# Passes over memory: of a loss over what it holds, of Stage 0's selection over the logits; bytes a
# candidate of a store. From results/reference/benchmarks.csv, at 30 GB/s.
LOSS, SELECTION, STORED = 2, 20, 6
FORWARD = 1 / 3  # of the work, and of the operations, forward and backward
SCORED = ("acc", "acc_norm", "perplexity", "word_perplexity")  # of any other, answers are written
ITEM_S = 0.9e-3  # lm-eval's own work on an item: fitted to the micro scale's evaluations
UNTIL_THE_LAST = 3.0  # times the mean answer, until all of a batch have stopped
CACHED, PROJECTED = 2**14, 512  # tokens a batch and positions at a time, of `evaluate.likelihood`
SAMPLE = 200  # bytes of samples.parquet an item


class Job(NamedTuple):
    """memory: bytes of tensors on one device, at most. disk: bytes left when it is done."""

    seconds: float
    memory: float
    disk: float = 0.0


def room(device: Device) -> float:
    """Bytes that predicted tensors may fill."""
    return memory.ROOM[device.kind] * (device.memory_gb - device.reserved_gb) * memory.GB


@dataclass(frozen=True)
class Jobs:
    """The jobs of the base called `model` on one device: a method a rule. scale: the workload's, or
    one with changed settings."""

    work: Workload
    scale: Scale
    model: str
    device: Device

    def __post_init__(self) -> None:
        update = {"precision": self.device.precision(self.scale.precision)}
        object.__setattr__(self, "scale", self.scale.model_copy(update=update))

    def job(self, rule: str, domain: str, method: str) -> Job:
        """What one run of a rule takes; domain or method may be empty."""
        return getattr(self, rule.removesuffix("_base"))(*filter(None, (domain, method)))

    @cached_property
    def shape(self) -> Shape:
        return self.work.shape(self.model)

    @property
    def weights(self) -> float:
        return FLOAT * self.shape.parameters

    @property
    def gpus(self) -> int:
        """That share a training run."""
        return max(1, self.scale.gpus)

    def base(self) -> Job:
        """Pretraining from scratch, on text like the general records, each step in two passes; of a
        model that is there, its file alone."""
        spec = self.scale.base(self.model)
        if not isinstance(spec, Scratch):
            return Job(0.0, self.weights, self.weights)
        load, half = self.work.load(REPLAY), spec.batch_size / 2
        step = 2 * self._pass_seconds(FULL, load, half, load.tokens, threads="pretrain")
        rows = [load.rows(spec.batch_size)]
        needed = memory.training_bytes(self.shape, FULL, rows, self.scale, 0.0) - self.weights
        return Job(spec.steps * step, needed, self.weights)

    def stage0(self, name: str) -> Job:
        """The candidate sets of a domain, or of `replay`."""
        load, settings = self.work.load(name), self.scale.stage0
        padded, positions = load.padded(settings.batch_size), load.records * load.supervised
        work = load.records * padded * flops.forward(self.shape, load.supervised / padded)
        seconds = self._both(work, FORWARD * math.ceil(load.records / settings.batch_size))
        logits = FLOAT * positions * self.shape.vocabulary
        seconds += SELECTION * logits / self.device.bandwidth
        needed = memory.stage0_bytes(self.shape, load.rows(settings.batch_size), self.scale)
        return Job(seconds, needed, STORED * positions * settings.k_max)

    def fisher(self, name: str = REPLAY) -> Job:
        """The Fisher of the base, a record at a time, whose squares are added up."""
        load = self.work.load(name)
        each = self._pass_seconds(FULL, load, 1, load.tokens)
        each += 4 * self.weights / self.device.bandwidth
        needed = memory.fisher_bytes(self.shape, FULL, load.rows(1), self.scale)
        return Job(min(self.scale.ewc.fisher_records, load.records) * each, needed, self.weights)

    def train(self, domain: str, method: str) -> Job:
        """One run: Stage 1 with its probes and, where sets are collected again, Stage 0's."""
        stage1 = self.scale.stage1
        probed = FORWARD * stage1.probe_records / (stage1.batch_size * stage1.probe_every)
        seconds = self.work.steps(domain) * self.step_seconds(domain, method) * (1 + probed)
        point, size = self.scale.method(method), self._set_size(method)
        rows = [load.rows(at_once) for load, _, at_once in self._sources(domain, method)]
        needed = memory.training_bytes(self.shape, point, rows, self.scale, size, self.gpus)
        if point.objective.refreshes:
            loads = [load for load, _, _ in self._sources(domain, method)]
            batches = [load.rows(self.scale.stage0.batch_size) for load in loads]
            again = memory.refresh_bytes(self.shape, point, batches, self.scale, self.gpus)
            needed = max(needed, again)
            names = [domain, *([REPLAY] if point.replay else [])]
            epochs = (self.work.steps(domain) - 1) * stage1.batch_size // loads[0].records
            seconds += epochs * sum(self.stage0(name).seconds for name in names)
        return Job(seconds, needed, self.weights)

    def evaluate(self, domain: str, method: str = "base", split: str = "test") -> Job:
        """One checkpoint on the domain's and all general benchmarks."""
        jobs = [self._benchmark(name, split) for name in (*self.scale.general, domain)]
        seconds, peaks, disk = zip(*jobs, strict=True)
        return Job(sum(seconds), max(peaks), sum(disk))

    def timings(self, domain: str) -> Job:
        """Steps of all methods in turns, with batches of Stage 0 and of the Fisher, as many of them
        in memory as there is room for."""
        points = {name: self.scale.method(name) for name in self.scale.methods}
        needs = frozenset().union(*(point.needs for point in points.values()))
        calls = [(self.step_seconds(domain, n), self.train(domain, n).memory) for n in points]
        if Need.STORE in needs:
            share = self.scale.stage0.batch_size / self.work.load(domain).records
            calls.append((share * self.stage0(domain).seconds, self.stage0(domain).memory))
        if Need.FISHER in needs:
            share = FISHER_CHUNK / self.scale.ewc.fisher_records
            calls.append((share * self.fisher().seconds, self.fisher().memory))
        seconds, peaks = (list(column) for column in zip(*calls, strict=True))
        kept = sum(memory.kept_bytes(self.shape, point) for point in points.values()) / self.gpus
        needed = max(max(peaks), min(max(peaks) + kept, room(self.device)))
        return Job((self.scale.timing.rounds + 2) * sum(seconds), needed)

    def tune(self, domain: str, method: str) -> Job:
        """Every trial of the grid, and the base, on validation splits."""
        run, scored = self.train(domain, method), self.evaluate(domain, method, "validation")
        trials = len(self.scale.tuning.learning_rates) * self.scale.tuning.settings
        seconds = trials * run.seconds + (trials + 1) * scored.seconds
        return Job(seconds, max(run.memory, scored.memory))

    def step_seconds(self, domain: str, method: str) -> float:
        """Seconds of one optimisation step."""
        stage1, point, size = self.scale.stage1, self.scale.method(method), self._set_size(method)
        again = 1 + FORWARD * stage1.gradient_checkpointing
        link = 3 * self.weights * (1 - 1 / self.gpus) / self.device.link
        computed = linked = 0.0
        for load, records, at_once in self._sources(domain, method):
            padded = load.tokens if stage1.length_buckets else load.padded(at_once)
            each = again * self._pass_seconds(point, load, at_once, padded, size)
            computed += each * records / at_once
            linked += link * math.ceil(records / at_once)
        trained = point.adapter.trained(self.shape) / self.gpus
        moved = (point.optimizer.passes + point.penalty.passes) * FLOAT * trained
        return max(computed, linked) + moved / self.device.bandwidth

    def _sources(self, domain: str, method: str) -> Iterator[tuple[Load, float, int]]:
        """What a device reads of a step: of which set, how many records, how many in one pass."""
        stage1, point = self.scale.stage1, self.scale.method(method)
        sizes = {domain: stage1.batch_size}
        if point.replay:
            supervised = [self.work.load(name).supervised for name in (domain, REPLAY)]
            sizes[REPLAY] = point.replayed(stage1.batch_size, *supervised)
        for name, size in sizes.items():
            share = math.ceil(size / self.gpus)
            at_once = min(share, stage1.micro_batch or share)
            yield self.work.load(name), size / self.gpus, at_once

    def _set_size(self, method: str) -> float:
        """Of a method's candidate sets, as if all were full."""
        return memory.largest_set(self.scale, self.scale.method(method))

    def _pass_seconds(
        self, method: Method, load: Load, records: float, padded: float, set_size: float = 0.0,
        threads: str = "train",
    ) -> float:  # fmt: skip
        """Forward and backward pass over records padded to so many tokens."""
        share, positions = load.supervised / padded, records * load.supervised
        work = records * padded * flops.training(method, self.shape, share, set_size)
        moved = LOSS * FLOAT * method.objective.values(positions, self.shape, set_size)
        # An adapter has operations of its own beside each.
        passes = 2 if method.adapter.trained(self.shape) < self.shape.parameters else 1
        return self._both(work, passes, threads) + moved / self.device.bandwidth

    def _benchmark(self, name: str, split: str) -> Job:
        """Prompts with their options; or prompts and then a pass a written token, which takes as
        long as reading the weights at least."""
        load, said = self.work.load(name, split), self.work.benchmarks[name]
        if not load.records:
            return Job(0.0, 0.0)
        most = said.max_new_tokens or self.scale.evaluation.max_new_tokens
        written = 0 if said.metric in SCORED else min(UNTIL_THE_LAST * load.supervised, most)
        answers = written or load.options * (load.supervised - 1)
        prompt = load.tokens + 1 - load.supervised
        tokens, rows = prompt + answers, min(load.records, self.scale.evaluation.batch_size)
        work = load.records * tokens * flops.forward(self.shape, answers / tokens)
        passes = math.ceil(load.records / rows) * (1 + (written or 1))
        seconds = self._both(work, FORWARD * passes, "evaluate") + ITEM_S * load.records
        if written:
            seconds = max(seconds, passes * self.weights / self.device.bandwidth)
        read, cached = rows * prompt, rows * (prompt + most)
        if not written:
            read = cached = min(rows * tokens, max(CACHED, tokens))
        logits, precision = 3 * FLOAT * PROJECTED * self.shape.vocabulary, self.scale.precision
        needed = memory.forward_bytes(self.shape, read, logits, precision)
        needed += 2 * WORKING[precision] * self.shape.kv * self.shape.layers * cached
        return Job(seconds, needed, SAMPLE * load.records)

    def rate(self, threads: str) -> float:
        """FLOP/s that matrix products reach; of a CPU, on so many threads, each a core."""
        device, precision = self.device, self.scale.precision
        share = min(getattr(self.scale.threads, threads), device.cores) / device.cores
        reached = getattr(device.achieved, precision) * getattr(device.peak_flops, precision)
        return reached * (share if device.kind == "cpu" else 1.0)

    def _both(self, work: float, passes: float, threads: str = "train") -> float:
        """Seconds of FLOPs and of starting the operations of passes: a GPU starts the next while it
        computes."""
        computed = work / self.rate(threads)
        started = passes * self.shape.layers * self.device.launch_s
        return max(computed, started) if self.device.kind == "cuda" else computed + started
