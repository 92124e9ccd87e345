"""What one job of a scale needs on a device: seconds, memory, disk.

Seconds of a step: FLOPs over the rate its matrix products reach, the start of each layer's
operations, the optimizer's and the loss's passes over memory; where GPUs share a model, not less
than FSDP2's gathers and scatters of the weights, 3 a pass."""

import math
from dataclasses import dataclass
from functools import cached_property

from lrmoclip.config import scale as config
from lrmoclip.cost.costs import FISHER_CHUNK, ONCE, needed_once
from lrmoclip.cost.devices import Device
from lrmoclip.cost.footprint import (
    FLOAT,
    WORKING,
    Part,
    Setting,
    Shape,
    fisher_memory,
    forward_memory,
    forward_work,
    run_memory,
    trainable,
    training_flops,
    training_memory,
)
from lrmoclip.cost.workload import Items, Load, Workload

# Passes over the parameters that a step of each optimizer takes as long as, and passes over the
# logits of the losses and of Stage 0's selection: results/reference/benchmarks.csv, at 30 GB/s.
OPTIMIZER = {"adamw": 4, "moclip": 18}
PENALTY, LOSS, SELECTION = 12, 6, 20
FORWARD = 1 / 3  # of the operations of a layer, forward and backward
STORE_FIXED, STORE_VALUE = 9.9, 3.48  # bytes a position, and a candidate beside its id: likewise
LORA_LAUNCHES = 2  # each projection is three
EVALUATED = 3.0  # times the mean answer, until the last of a batch has stopped
ITEM_S = 1.2e-3  # lm-eval's own work on an item: fitted to the micro scale's evaluations
SERVED = 256  # sequences at a time under vLLM
SCORED, PROJECTED = 2**14, 512  # tokens a batch and positions projected at a time (`likelihood`)
SAMPLE = 200  # bytes of samples.parquet an item
CHUNK = 2**24  # logits that Stage 0 holds at a time, with their softmax, order and complement
SELECTED = 20  # bytes each of them, all in all


@dataclass(frozen=True)
class Need:
    """Seconds on the device, bytes of memory on each GPU (libraries left out), bytes of disk that
    stay."""

    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Jobs:
    """The jobs of one base model of a scale on one device."""

    work: Workload
    shape: Shape
    device: Device

    @property
    def scale(self) -> config.Scale:
        return self.work.scale

    @property
    def precision(self) -> str:
        return self.scale.settings.get("precision", "float32")

    @property
    def gpus(self) -> int:
        """That share a training run."""
        return self.scale.settings.get("gpus", 1) if self.device.cuda else 1

    @cached_property
    def weights(self) -> float:
        return FLOAT * self.shape.parameters

    def set_size(self, name: str, method: dict) -> float:
        """Mean size of a method's candidate sets: stated, else as if every set were full."""
        if not config.needs_sets(method):
            return 0.0
        known = self.work.stated(name).get("set_size", self.scale["stage0"]["k_max"])
        return min(known, method["objective"].get("k_max", math.inf))

    def setting(self, method: dict, domain: str, **changes) -> Setting:
        """How this scale trains, with `changes` of micro_batch, gradient_checkpointing, gpus."""
        stage1 = {**self.scale["stage1"], **changes}
        gpus = stage1.get("gpus", self.gpus)
        per_gpu = math.ceil(stage1["batch_size"] / gpus)
        passes = math.ceil(per_gpu / stage1.get("micro_batch", per_gpu))
        sets = self.set_size(domain, method)
        checkpointing = stage1.get("gradient_checkpointing", False)
        return Setting(self.precision, gpus, checkpointing, sets, passes)

    def parts(self, method: dict, domain: str, **changes) -> list[tuple[Part, float]]:
        """The passes of a step on one GPU, of the domain's and of replayed records: each with how
        often it is repeated."""
        stage1 = {**self.scale["stage1"], **changes}
        bucketed, size = stage1.get("length_buckets", False), stage1["batch_size"]
        sources = [(domain, size)]
        if method["replay"]:
            sources.append(("replay", max(1, round(method["replay"] * size))))
        found = []
        for name, records in sources:
            load, share = self.work.training(name), records / stage1.get("gpus", self.gpus)
            at_once = min(math.ceil(share), stage1.get("micro_batch", math.ceil(share)))
            found.append((load.part(at_once, bucketed), share / at_once))
        return found

    def training_memory(self, method: dict, domain: str, **changes) -> float:
        setting = self.setting(method, domain, **changes)
        parts = self.parts(method, domain, **changes)
        return training_memory(self.shape, method, [part for part, _ in parts], setting)

    def step_seconds(self, method: dict, domain: str) -> float:
        """Seconds of one optimisation step."""
        setting = self.setting(method, domain)
        compute = moved = 0.0
        for part, times in self.parts(method, domain):
            compute += times * self._pass_seconds(method, part, setting)
            moved += math.ceil(times) * self._link_seconds(setting.gpus)
        trained = trainable(self.shape, method)
        passes = OPTIMIZER[method["optimizer"]["name"]]
        passes += PENALTY if method["penalty"]["name"] == "ewc" else 0
        update = passes * FLOAT * trained / setting.gpus / self.device.bandwidth
        return max(compute, moved) + update

    def _pass_seconds(self, method: dict, part: Part, setting: Setting) -> float:
        flops = training_flops(self.shape, method, [part], setting)
        launches = self.shape.layers * self.device.launch_s
        launches *= LORA_LAUNCHES if method["adapter"]["name"] == "lora" else 1
        launches *= 1 + FORWARD if setting.checkpointing else 1
        logits = 0 if config.needs_sets(method) else self.shape.vocabulary
        moved = LOSS * FLOAT * part.records * part.supervised * logits
        moved += self._cast_bytes * (2 if setting.checkpointing else 1)
        return self._both(flops / self._rate("train"), launches) + moved / self.device.bandwidth

    def train(self, method: dict, domain: str, **changes) -> Need:
        """One run: Stage 1 with its probes."""
        stage1, load = self.scale["stage1"], self.work.training(domain)
        steps = math.ceil(stage1["epochs"] * load.records / stage1["batch_size"])
        records = min(stage1["probe_records"], load.records)
        probes = steps // stage1["probe_every"] + 2
        seconds = steps * self.step_seconds(method, domain)
        seconds += probes * self._forward_seconds(load, records, records, self.gpus)
        return Need(seconds, self.training_memory(method, domain, **changes), self.weights)

    def stage0(self, name: str) -> Need:
        """Candidate sets of a domain, or of `replay`."""
        load, settings = self.work.training(name), self.scale["stage0"]
        size = settings["batch_size"]
        positions = load.records * load.supervised
        ids = math.log2(self.shape.vocabulary) / 8 + STORE_VALUE
        seconds = self._forward_seconds(load, load.records, size)
        seconds += SELECTION * FLOAT * positions * self.shape.vocabulary / self.device.bandwidth
        kept = self.work.stated(name).get("set_size", settings["k_max"])
        disk = positions * (STORE_FIXED + ids * kept)
        return Need(seconds, self.stage0_memory(name, size), disk)

    def stage0_memory(self, name: str, size: int | None = None) -> float:
        """Peak bytes of Stage 0, `size` records (the scale's) a forward pass."""
        load = self.work.training(name)
        size = min(size or self.scale["stage0"]["batch_size"], load.records)
        rows = min(size * load.most_supervised, max(1, CHUNK // self.shape.vocabulary))
        return forward_memory(self.shape, size * load.longest, rows, self.precision, SELECTED)

    def fisher(self) -> Need:
        """EWC's Fisher: forward and backward, one record at a time."""
        records = min(self.scale["ewc"]["fisher_records"], self.work.training("replay").records)
        return Need(records * self._fisher_seconds(), self.fisher_memory(), self.weights)

    def fisher_memory(self) -> float:
        """Peak bytes of the Fisher's passes."""
        part, method = self.work.training("replay").part(1), self.scale.method("full_ft")
        return fisher_memory(self.shape, method, part, self.precision)

    def _fisher_seconds(self) -> float:
        """Seconds of one record."""
        part, method = self.work.training("replay").part(1), self.scale.method("full_ft")
        update = 4 * self.weights / self.device.bandwidth  # squares, added up
        return self._pass_seconds(method, part, Setting(self.precision)) + update

    def base(self, spec: dict) -> Need:
        """Pretraining from scratch; of a finished model, nothing but the files."""
        if "family" not in spec:
            return Need(0.0, self.weights, self.weights)
        load, method = self.work.training("pretraining"), self.scale.method("full_ft")
        part, setting = load.part(spec["batch_size"], bucketed=True), Setting("float32")
        threads = self.scale["threads"]["pretrain"]
        flops = training_flops(self.shape, method, [part], setting)
        step = flops / self.device.rate("float32", threads)
        step += 2 * self.shape.layers * self.device.launch_s  # two parts, short and long
        memory = training_memory(self.shape, method, [part], setting) - self.weights
        return Need(spec["steps"] * step, memory, self.weights)

    def evaluate(self, domain: str, split: str = "test") -> Need:
        """One checkpoint on the domain's and all general benchmarks."""
        items = self._items(domain, split)
        seconds = sum(self._items_seconds(each) for each in items)
        kept = SAMPLE * sum(each.count for each in items)
        return Need(seconds, self.evaluation_memory(domain, split), kept)

    def evaluation_memory(self, domain: str, split: str = "test", size: int | None = None) -> float:
        """Peak bytes of an evaluation in batches of `size` items (the scale's): a forward pass and
        the keys and values of each option or each token that is written."""
        size = size or self.scale["evaluation"]["batch_size"]
        w, peaks = WORKING[self.precision], []
        for each in self._items(domain, split):
            length = each.prompt + (0 if each.generated else each.answer)
            rows = min(size, each.count)
            tokens = rows * length
            if each.generated:
                slots, projected = rows * (length + each.most), rows
            else:
                tokens = min(tokens, max(SCORED, length))
                slots, projected = tokens * each.forwards, PROJECTED
            cache = 2 * w * self.shape.kv * self.shape.layers * slots
            logits = 3 * FLOAT
            forward = forward_memory(self.shape, tokens, projected, self.precision, logits)
            peaks.append(forward + cache)
        return max(peaks, default=0.0)

    def _items(self, domain: str, split: str) -> list[Items]:
        named = {**self.scale["general"], domain: self.scale.domain(domain)}
        found = [self.work.items(name, said, split) for name, said in named.items()]
        return [items for items in found if items.count]

    def timings(self, domain: str, room: float) -> Need:
        """Steps of all methods in turns, with Stage 0 and the Fisher beside them, in groups that
        `room` bytes hold."""
        groups = self.timing_groups(self.scale["methods"], domain, room)
        rounds = self.scale["timing"]["rounds"] + 2
        seconds = rounds * sum(self._timed(name, domain) for group in groups for name in group)
        return Need(seconds, max(self.timing_memory(group, domain) for group in groups), 0.0)

    def _timed(self, name: str, domain: str) -> float:
        """Seconds of one call of what the rule `timings` times."""
        if name == "stage0":
            size = self.scale["stage0"]["batch_size"]
            return self._forward_seconds(self.work.training(domain), size, size)
        if name == "fisher":
            return FISHER_CHUNK * self._fisher_seconds()
        return self.step_seconds(self.scale.method(name), domain)

    def timing_groups(self, methods: list[str], domain: str, room: float) -> list[list[str]]:
        """`methods`, and `stage0` and `fisher` where one of them needs it, in groups that `room`
        bytes hold. Each begins with full_ft (without it, the first method), but for what has no
        room beside it and stands alone."""
        first = "full_ft" if "full_ft" in methods else methods[0]
        once = needed_once([self.scale.method(name) for name in methods])
        groups = [[first]]
        for name in [*(name for name in methods if name != first), *once]:
            tries = [*groups[-1], name], [first, name]
            fitting = [group for group in tries if self.timing_memory(group, domain) <= room]
            if fitting[:1] == [tries[0]]:
                groups[-1] = tries[0]
            else:
                groups.append(fitting[0] if fitting else [name])
        return groups

    def timing_memory(self, group: list[str], domain: str) -> float:
        """Peak bytes on each device where the runs of a group stand beside one another."""
        methods = [self.scale.method(name) for name in group if name not in ONCE]
        kept = [run_memory(self.shape, method) / self.gpus for method in methods]
        base = self.weights if self.gpus > 1 and set(group) & set(ONCE) else 0.0
        peaks = [
            base + self.training_memory(method, domain) - own
            for method, own in zip(methods, kept, strict=True)
        ]
        if "stage0" in group:
            peaks.append(self.stage0_memory(domain))
        if "fisher" in group:
            peaks.append(self.fisher_memory())
        return sum(kept) + max(peaks)

    def tune(self, method: dict, domain: str) -> Need:
        """Every learning rate of the grid, on validation splits."""
        run, scored = self.train(method, domain), self.evaluate(domain, "validation")
        rates = len(self.scale["tuning"]["learning_rates"])
        seconds = rates * run.seconds + (rates + 1) * scored.seconds
        return Need(seconds, max(run.memory, scored.memory), 0.0)

    def _both(self, compute: float, launches: float) -> float:
        """Seconds of operations and of starting them: a GPU starts the next while it computes."""
        return max(compute, launches) if self.device.cuda else compute + launches

    @property
    def _cast_bytes(self) -> float:
        """Read and written by autocast, which casts each weight once a forward pass."""
        w = WORKING[self.precision]
        return 0.0 if w == FLOAT else (FLOAT + w) * self.shape.projections

    def _rate(self, threads: str) -> float:
        return self.device.rate(self.precision, self.scale["threads"][threads])

    def _link_seconds(self, gpus: int) -> float:
        if gpus == 1:
            return 0.0
        moved = 3 * self.weights * (gpus - 1) / gpus
        return moved / self.device.link

    def _forward_seconds(self, load: Load, records: float, batch: int, gpus: int = 1) -> float:
        """Forward passes over training records, projecting the supervised positions."""
        padded = load.padded(min(batch, load.records))
        flops = forward_work(self.shape, records * padded, padded, load.supervised / padded)
        passes = math.ceil(records / batch)
        launches = passes * self.shape.layers * self.device.launch_s * FORWARD
        casts = passes * self._cast_bytes / self.device.bandwidth
        return (self._both(flops / self._rate("train"), launches) + casts) / gpus

    def _items_seconds(self, items: Items) -> float:
        """Prompts once, then either all options, or a pass a written token: as long as its FLOPs
        or the reading of the weights. Only what is scored is projected."""
        served = self.scale["evaluation"].get("backend", "hf") == "vllm"
        size = min(SERVED if served else self.scale["evaluation"]["batch_size"], items.count)
        rate, layer = self._rate("evaluate"), self.shape.layers * self.device.launch_s * FORWARD
        scored = 1 if items.generated else items.forwards * items.answer
        length = items.prompt + (0 if items.generated else scored)
        context = items.prompt + items.answer
        flops = forward_work(self.shape, items.count * length, context, scored / length)
        seconds = self._both(flops / rate, 2 * math.ceil(items.count / size) * layer)
        seconds += ITEM_S * items.count
        if not items.generated:
            return seconds
        steps = items.answer if served else min(EVALUATED * items.answer, items.most)
        token = forward_work(self.shape, size, context, 1.0) / rate
        width = WORKING[self.precision] if served else FLOAT
        read = width * self.shape.parameters / self.device.bandwidth
        each = self._both(max(token, read), 0 if served else layer)
        return seconds + items.count / size * steps * each
