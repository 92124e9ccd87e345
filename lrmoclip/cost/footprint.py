"""Memory and work of a model, from its config alone: no weights are loaded.

Per token and layer a backward pass finds stored, after Korthikanti et al. 2022 (arXiv 2205.05198),
counted anew for transformers' blocks without dropout, with fused attention (nothing is T x T):

    gated MLP    4 d 4 + n d w + 2 (q + kv) w + 4 f w, and (q + kv) (4 + w) with normalised heads
    plain MLP    d 4 + 2 d w + 7 q w + 2 f w (GPT-NeoX, whose q, k and v are views of one tensor)

bytes, with d hidden, f MLP, q = heads x head size, kv likewise, w bytes of the compute dtype and
n = 2 in float32, 5 under autocast, which keeps a cast copy for each projection. Checkpointed, 4 d a
layer and one layer's whole are left. Autocast also keeps 2 bytes for each weight of a projection.

FLOPs are those of `lrmoclip.cost.costs` plus attention's quadratic part, 2 L q T a token and pass
(Chowdhery et al. 2022, arXiv 2204.02311, appendix B, a pass being two multiplications by the
weights). Left out: norms, activations and fragmentation of the allocator."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from lrmoclip.config import scale as config
from lrmoclip.core.errors import UserError
from lrmoclip.cost import costs
from lrmoclip.models import checkpoints

FLOAT = 4  # bytes of a weight, a gradient and a moment: all float32
WORKING = {"float32": 4, "bfloat16": 2}  # bytes of what a layer computes with


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model; counts of parameters, tied weights counted once."""

    parameters: int
    body: int
    head: int
    d: int
    vocabulary: int
    layers: int
    q: int
    kv: int
    f: int
    projections: int  # weights of the body's linear layers
    low_rank: int  # their inputs plus outputs: a LoRA of rank r has r times as many parameters
    block: int  # of the largest layer
    gated: bool
    normalised_heads: bool

    @property
    def of_costs(self) -> dict[str, int]:
        return {"body": self.body, "head": self.head, "d": self.d}

    def activations(self, precision: str) -> float:
        """Bytes a token and layer that the backward pass needs."""
        w = WORKING[precision]
        if not self.gated:
            return FLOAT * self.d + w * (2 * self.d + 7 * self.q + 2 * self.f)
        heads = self.q + self.kv
        copies = 2 if w == FLOAT else 5
        normed = (FLOAT + w) * heads if self.normalised_heads else 0
        return 4 * FLOAT * self.d + w * (copies * self.d + 2 * heads + 4 * self.f) + normed


def shape_of(path: Path, base: str, spec: dict) -> Shape:
    """The shape of a base as the scale's config at `path` describes it (`bases.<base>`): trained
    from scratch, or with an `architecture`, the entries of its transformers config.

    Raises UserError where neither is there, or transformers does not know the architecture.
    """
    place = f"{path}: bases.{base}"
    if "family" in spec:
        return _from_scratch(tuple(sorted(spec.items())))
    if "architecture" not in spec:
        raise UserError(
            f"{place}: no architecture, and no checkpoint yet",
            "Add the key architecture, or make the base first",
        )
    try:
        return _of_config(tuple(sorted(spec["architecture"].items())))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{place}.architecture: {' '.join(str(error).split())[:200]}") from None


@lru_cache
def shape_of_checkpoint(path: Path) -> Shape:
    """The shape of a checkpoint folder, from its config.json. UserError where that is none of a
    causal LM."""
    from transformers import AutoModelForCausalLM

    folder = checkpoints.folder(path)
    said = checkpoints.config_of(folder)
    try:
        return _measured(lambda: AutoModelForCausalLM.from_config(said))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        words = f"{path}: not a checkpoint of a causal LM ({reason})"
        raise UserError(words, folder.hint) from None


@lru_cache
def _of_config(entries: tuple) -> Shape:
    from transformers import AutoConfig, AutoModelForCausalLM

    said = AutoConfig.for_model(**dict(entries))
    return _measured(lambda: AutoModelForCausalLM.from_config(said))


@lru_cache
def _from_scratch(entries: tuple) -> Shape:
    from lrmoclip.models.scratch import new_model

    tokens = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    return _measured(lambda: new_model(dict(entries), tokens))


def _measured(build) -> Shape:
    """The shape of the model that `build` makes, on the meta device."""
    import torch

    with torch.device("meta"), torch.random.fork_rng():
        model = build()
    said = model.config.get_text_config()
    known = costs.model_shape(model)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    layers, names = said.num_hidden_layers, [name for name, _ in model.named_parameters()]
    heads = said.num_attention_heads
    size = getattr(said, "head_dim", None) or known["d"] // heads
    sizes: dict[str, int] = {}
    for name, parameter in model.base_model.named_parameters():
        if name.startswith("layers."):
            layer = name.split(".")[1]
            sizes[layer] = sizes.get(layer, 0) + parameter.numel()
    return Shape(
        parameters=model.num_parameters(),
        vocabulary=head.weight.shape[0],
        layers=layers,
        q=heads * size,
        kv=(getattr(said, "num_key_value_heads", None) or heads) * size,
        f=said.intermediate_size,
        projections=sum(m.weight.numel() for m in linear),
        low_rank=sum(m.in_features + m.out_features for m in linear),
        block=max(sizes.values()),
        gated=any("gate_proj" in name for name in names),
        normalised_heads=any("q_norm" in name for name in names),
        **known,
    )


@dataclass(frozen=True)
class Part:
    """A forward pass of a step: `records` rows padded to `longest` tokens, `padded` on average, of
    which `supervised` a record are projected on average, at most `most`."""

    records: int
    longest: float
    padded: float
    supervised: float
    most: float


@dataclass(frozen=True)
class Setting:
    """How a model is trained: the precision of forward passes, GPUs that share it, gradient
    checkpointing, the mean size of candidate sets, and how many passes a step's gradients add up.
    """

    precision: str
    gpus: int = 1
    checkpointing: bool = False
    set_size: float = 0.0
    passes: int = 1


def training_memory(shape: Shape, method: dict, parts: list[Part], setting: Setting) -> float:
    """Peak bytes of a training run on each GPU, libraries left out.

    On one device the base stays, whole, beside the run that starts from a copy of it. Several share
    the run's weights, gradients and moments (FSDP2), and what a run starts from stays on the host.
    The peak is where the run begins (the base, the copy, EWC's Fisher, all whole), where the loss
    has been computed, or where the optimizer steps:

        base + weights + moments + max(activations + loss + gradient of the head,
                                       gradients + what was temporary for the head)
    """
    share, trained = 1 / setting.gpus, trainable(shape, method)
    ewc = method["penalty"]["name"] == "ewc"
    weights = FLOAT * shape.parameters
    base = weights if setting.gpus == 1 else 0.0
    gradients = FLOAT * trained * share
    held = base + run_memory(shape, method) * share
    if ewc:  # drift, its square, a product
        gradients += 3 * FLOAT * trained * share
    if setting.gpus > 1:  # whole while they compute: a layer, the next, a buffer; and the root
        held += 3 * FLOAT * shape.block + (weights - FLOAT * shape.body)
    of_head = FLOAT * shape.head if trained == shape.parameters else 0
    peaks = []
    for place, part in enumerate(parts):
        before = gradients if place or setting.passes > 1 else 0.0
        peaks.append(before + _pass_memory(shape, method, part, setting) + of_head)
    return max((3 if ewc else 2) * base, held + max(*peaks, gradients + 2 * of_head))


def run_memory(shape: Shape, method: dict) -> float:
    """Bytes that a run keeps from step to step on all its devices together: weights, adapters,
    moments, EWC's anchor and Fisher."""
    trained = trainable(shape, method)
    kept = shape.parameters + 2 * trained
    if trained < shape.parameters:
        kept += trained
    if method["penalty"]["name"] == "ewc":
        kept += 2 * trained
    return FLOAT * kept


def fisher_memory(shape: Shape, method: dict, part: Part, precision: str) -> float:
    """Peak bytes of the Fisher's passes: weights, squares, and of the gradients one at a time. The
    head's is the largest: it comes first, and with tied weights is added to the embedding's last.
    """
    largest = FLOAT * max(shape.head, shape.block)
    peak = max(_pass_memory(shape, method, part, Setting(precision)) + largest, 3 * largest)
    return 2 * FLOAT * shape.parameters + peak


def _pass_memory(shape: Shape, method: dict, part: Part, setting: Setting) -> float:
    """Bytes between forward and backward pass: activations, the loss, autocast's copies."""
    tokens, w = part.records * part.longest, WORKING[setting.precision]
    layer = tokens * shape.activations(setting.precision)
    ends = 3 * FLOAT * tokens * shape.d  # embedding, last norm
    copies = 0 if w == FLOAT else w
    loss = _loss_memory(shape, method, part, setting) + copies * shape.projections
    if not setting.checkpointing:
        return shape.layers * layer + ends + loss
    # Either the loss or one layer at a time, computed again.
    kept = tokens * shape.layers * FLOAT * shape.d
    return kept + ends + max(loss, layer + copies * shape.block)


def _loss_memory(shape: Shape, method: dict, part: Part, setting: Setting) -> float:
    """Bytes of the loss: N x V log-probabilities and two gradients of them in float32, or what the
    candidate sets need (`kernels`: the union's block, or set by set where that is smaller)."""
    n = part.records * part.most
    if not config.needs_sets(method):
        return 3 * FLOAT * n * shape.vocabulary
    pairs = n * setting.set_size
    union = min(shape.vocabulary, pairs) + method["objective"].get("negatives", 0)
    whole = method["objective"].get("denominator") == "union"
    block = n * union if whole else min(n * union, 4 * pairs)
    return FLOAT * (3 * block + 2 * union * shape.d + 4 * pairs)


def trainable(shape: Shape, method: dict) -> int:
    """Parameters that a method trains."""
    adapter = method["adapter"]
    return adapter["rank"] * shape.low_rank if adapter["name"] == "lora" else shape.parameters


def forward_memory(
    shape: Shape, tokens: float, rows: float, precision: str, logits: float, gpus: int = 1
) -> float:
    """Peak bytes of a forward pass without a graph over `tokens` tokens, of which `rows` are
    projected at a time, each with `logits` bytes for every token of the vocabulary."""
    w = WORKING[precision]
    copies = 0 if w == FLOAT else w * shape.projections
    layer = tokens * (3 * FLOAT * shape.d + w * (2 * shape.q + 2 * shape.kv + 3 * shape.f))
    return FLOAT * shape.parameters / gpus + copies + layer + logits * rows * shape.vocabulary


def training_flops(shape: Shape, method: dict, parts: list[Part], setting: Setting) -> float:
    """FLOPs of a step over padded batches, with gradient checkpointing's second forward pass."""
    passes = 4 if method["adapter"]["name"] == "lora" else 6
    total = 0.0
    for part in parts:
        tokens = part.records * part.padded
        share = part.supervised / part.padded
        each = costs.flops_per_token(method, shape.of_costs, share, setting.set_size)
        again = 2 if setting.checkpointing else 0
        each += again * shape.body
        each += (passes + again) * 2 * shape.layers * shape.q * part.padded
        total += tokens * each
    return total


def forward_work(shape: Shape, tokens: float, length: float, share: float) -> float:
    """FLOPs of a forward pass over `tokens` tokens in sequences of `length`, of which `share` are
    projected."""
    return tokens * (
        costs.forward_flops(shape.of_costs, share) + 4 * shape.layers * shape.q * length
    )
