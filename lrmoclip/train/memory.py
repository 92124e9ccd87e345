"""How many bytes a run needs on its device, and the refusal of one that the device can't hold.

All of it is predicted from counts of weights and tokens, what a method keeps being asked of its
entries. Left out: norms, libraries, and what an allocator loses between tensors."""

from dataclasses import dataclass

from lrmoclip.config import Scale
from lrmoclip.core import sharding
from lrmoclip.core.errors import UserError
from lrmoclip.core.precision import chosen
from lrmoclip.data.batches import Encoded
from lrmoclip.methods import Method, Need
from lrmoclip.models.shapes import FLOAT, WORKING, Shape, shape_of_checkpoint
from lrmoclip.train.workbench import Workbench

GB = 1e9
# Of what is free, what tensors may fill: of a process, the memory was up to 1 / 0.65 of what was
# predicted (results/reference/paper/plan_check.csv); on a GPU it is a guess.
ROOM = {"cpu": 0.65, "cuda": 0.9}
LOGITS = 2**24  # that Stage 0 holds at a time, with their softmax, order and complement
SELECTED = 20  # bytes each of them, all in all


@dataclass(frozen=True)
class Rows:
    """The records of a forward pass: how many, and the most tokens and supervised positions that
    one of them has."""

    records: float
    tokens: float
    supervised: float

    @classmethod
    def of(cls, data: Encoded, records: float) -> "Rows":
        longest, most = max(data.lengths), int(data.supervised.max())
        return cls(min(records, len(data)), longest, most)


def training_bytes(
    shape: Shape, method: Method, passes: list[Rows], scale: Scale, set_size: float, gpus: int = 1
) -> float:
    """Peak bytes of a training run on each device, whose step has passes like these.

    On one device the base stays, whole, beside the run that starts from a copy of it; several share
    weights, gradients and what is kept for each parameter (FSDP2), and the base stays on the host,
    but for an objective that runs it, which shards it, too.
    The peak is where the run begins (the base, the copy, a Fisher, all whole), where the loss has
    been computed, or where the optimizer steps.
    """
    trained, weights = method.adapter.trained(shape), FLOAT * shape.parameters
    base = weights if gpus == 1 else 0.0
    # The penalty's drift, its square and a product are held beside the gradients.
    gradients = FLOAT * trained * (4 if method.penalty.state else 1) / gpus
    of_head = FLOAT * shape.head if trained == shape.parameters else 0
    held = base + kept_bytes(shape, method) / gpus
    if gpus > 1 and Need.BASE in method.needs:
        held += weights / gpus
    if gpus > 1:  # whole while they compute: a layer, the next, a buffer; and the root
        held += 3 * FLOAT * shape.block + weights - FLOAT * shape.body
    peaks = [gradients + 2 * of_head]
    for place, rows in enumerate(passes):
        before = gradients if place or scale.stage1.micro_batch else 0.0
        peaks.append(before + of_head + _pass_bytes(shape, method, rows, scale, set_size))
    begins = (3 if Need.FISHER in method.needs else 2) * base
    return max(begins, held + max(peaks))


def kept_bytes(shape: Shape, method: Method) -> float:
    """What a run keeps from step to step on all its devices: weights, adapters, the optimizer's
    state and the penalty's."""
    trained = method.adapter.trained(shape)
    adapters = trained if trained < shape.parameters else 0
    state = method.optimizer.state + method.penalty.state
    return FLOAT * (shape.parameters + adapters + state * trained)


def fisher_bytes(shape: Shape, method: Method, rows: Rows, scale: Scale) -> float:
    """Peak bytes of the Fisher's passes: weights, squares, and of the gradients one at a time. The
    head's is the largest: it comes first, and with tied weights is added to the embedding's last.
    """
    largest = FLOAT * max(shape.head, shape.block)
    peak = _pass_bytes(shape, method, rows, scale, 0.0, checkpointed=False) + largest
    return 2 * FLOAT * shape.parameters + max(peak, 3 * largest)


def forward_bytes(shape: Shape, tokens: float, logits: float, precision: str) -> float:
    """Peak bytes of a forward pass without a graph over `tokens` tokens, `logits` being those of
    the positions that are projected at a time."""
    w = WORKING[precision]
    copies = 0 if w == FLOAT else w * shape.projections
    layer = tokens * (3 * FLOAT * shape.d + w * (2 * shape.q + 2 * shape.kv + 3 * shape.f))
    return FLOAT * shape.parameters + copies + layer + logits


def stage0_bytes(shape: Shape, rows: Rows, scale: Scale) -> float:
    """Peak bytes of Stage 0."""
    projected = min(rows.records * rows.supervised, max(1, LOGITS // shape.vocabulary))
    logits = SELECTED * projected * shape.vocabulary
    return forward_bytes(shape, rows.records * rows.tokens, logits, chosen(scale.precision))


def refresh_bytes(
    shape: Shape, method: Method, batches: list[Rows], scale: Scale, gpus: int = 1
) -> float:
    """Peak bytes on each device where a run collects Stage 0 again, in batches like these; 0 for a
    method that does not. The sets themselves are kept on the host."""
    if not method.objective.refreshes:
        return 0.0
    # Of the two models that stand on one device, Stage 0 counts one.
    collecting = max(stage0_bytes(shape, rows, scale) for rows in batches)
    return collecting + kept_bytes(shape, method) / gpus


def _pass_bytes(
    shape: Shape, method: Method, rows: Rows, scale: Scale, set_size: float,
    checkpointed: bool | None = None,
) -> float:  # fmt: skip
    """Between forward and backward pass: activations, the loss, autocast's copies."""
    if checkpointed is None:
        checkpointed = scale.stage1.gradient_checkpointing
    precision = chosen(scale.precision)
    tokens, w = rows.records * rows.tokens, WORKING[precision]
    layer = tokens * shape.activations(precision)
    ends = 3 * FLOAT * tokens * shape.d  # embedding, last norm
    copies = 0 if w == FLOAT else w
    loss = FLOAT * method.objective.values(rows.records * rows.supervised, shape, set_size)
    loss += copies * shape.projections
    if not checkpointed:
        return shape.layers * layer + ends + loss
    # Either the loss or one layer at a time, computed again.
    kept = tokens * shape.layers * FLOAT * shape.d
    return kept + ends + max(loss, layer + copies * shape.block)


def free_bytes() -> tuple[float, str, str]:
    """Bytes that are free now on the device that computes, its kind, and its name in words."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]), "cuda", torch.cuda.get_device_name()
    return float(psutil.virtual_memory().available), "cpu", "this machine"


def passes_of(bench: Workbench, method: Method, gpus: int) -> list[Rows]:
    """The largest forward passes of a step on each device: of the domain's, of general records."""
    stage1 = bench.scale.stage1
    sources = [(bench.records, stage1.batch_size)]
    if Need.GENERAL in method.needs:
        supervised = [d.supervised.double().mean().item() for d in (bench.records, bench.general)]
        sources.append((bench.general, method.replayed(stage1.batch_size, *supervised)))
    return [
        Rows.of(data, min(-(-size // gpus), stage1.micro_batch or size)) for data, size in sources
    ]


def largest_set(scale: Scale, method: Method) -> int:
    """Tokens of a candidate set as a method reads it, of gold ones forced in apart."""
    if Need.STORE not in method.needs:
        return 0
    settings = scale.stage0.model_dump()
    return (method.objective.narrowed(settings) or settings)["k_max"]


def needed(bench: Workbench, method: str | None) -> float:
    """Bytes that a run of `method`, or Stage 0 (None), needs on each device."""
    shape, scale = shape_of_checkpoint(bench.checkpoint), bench.scale
    if method is None:
        return stage0_bytes(shape, Rows.of(bench.records, scale.stage0.batch_size), scale)
    point, gpus = bench.point(method), sharding.asked()
    passes, largest = passes_of(bench, point, gpus), largest_set(scale, point)
    peak = training_bytes(shape, point, passes, scale, largest, gpus)
    data = [bench.records, *([bench.general] if Need.GENERAL in point.needs else [])]
    rows = [Rows.of(each, scale.stage0.batch_size) for each in data]
    return max(peak, refresh_bytes(shape, point, rows, scale, gpus))


def refuse_if_too_large(bench: Workbench, method: str | None = None) -> None:
    """Refuse, before its model is loaded, a run of `method` (None: Stage 0) that this device's free
    memory can't hold, with the predicted and the free memory."""
    free, kind, words = free_bytes()
    room = ROOM[kind] * free
    if (asked := needed(bench, method)) <= room:
        return
    smaller = "stage0.batch_size" if method is None else "stage1.micro_batch"
    raise UserError(
        f"{bench.base}, {bench.domain}, {method or 'Stage 0'}: needs about "
        f"{asked / ROOM[kind] / GB:.1f} GB, {free / GB:.1f} GB are free on {words}",
        f"Lower {smaller} in the scale's config, or take a device with more memory",
    )
