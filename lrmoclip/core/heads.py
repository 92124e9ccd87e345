"""Reaches the vocabulary projection of a Hugging Face causal LM through its root `forward`.

A pre-hook on the output embedding decides which rows are projected, so that hooks of DDP and FSDP
fire. logits = logit_map(W h + bias), and the model itself is the witness: what its config says of
the map is tried on probe rows in the first forward pass, and a model that disagrees is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrmoclip.core.eager import eager
from lrmoclip.core.errors import UserError
from lrmoclip.core.padding import model_inputs, padding_tokens

# What configs call the scale and the soft-cap of their logits. Families disagree on whether a
# scale multiplies or divides (HyperCLOVAX and Granite give it one name), so both are tried.
_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_PROBE_PEAKS = (0.0, 10.0, 1000.0)  # largest logit of each probe row, before bias and map


class ScaleAndCap(NamedTuple):
    """The elementwise map cap * tanh(scale * z / cap), or scale * z without a cap."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, z: Tensor) -> Tensor:
        z = z if self.scale == 1 else z * self.scale
        return z if self.cap is None else torch.tanh(z / self.cap) * self.cap


class Head(NamedTuple):
    """The vocabulary projection: logits = logit_map(weight @ h + bias).

    weight (V, d) and bias (V,) or None are the model's own tensors, logit_map is elementwise, None
    where the model leaves its logits alone. The losses have arguments of these names:
    `restricted_linear_cross_entropy(hidden, **head._asdict(), ...)`.
    """

    weight: Tensor
    bias: Tensor | None = None
    logit_map: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, V), the projection in the weight's dtype."""
        z = F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        return z if self.logit_map is None else self.logit_map(z)


@eager
def head_of(model: nn.Module) -> Head:
    """The vocabulary head of a causal LM, bare or wrapped (peft, DDP, torch.compile of its body).

    The first `supervised_hidden` of a model has tried its head; without one before, a forward
    pass of two tokens does (eval mode, no gradients, no random numbers drawn).

    Raises UserError, naming the class, for a model whose logits are not those of a `Head`.
    """
    owner = _owner(model)
    projection = _linear(owner)
    if _known_map(owner, projection) is None:
        padding = padding_tokens(owner)
        text = [token for token in range(len(padding) + 2) if token not in padding]
        tokens = torch.tensor([text[:2]], device=projection.weight.device)
        with _quiet(model):
            supervised_hidden(model, tokens, torch.ones_like(tokens, dtype=torch.bool))
    found = _known_map(owner, projection)
    return Head(*_whole(owner, projection), None if found == ScaleAndCap() else found)


def supervised_logits(
    model: nn.Module, input_ids: Tensor, supervised: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Logits (N, V) of the N positions where `supervised` (B, T) bool is true, and of no other.

    input_ids (B, T) int64, padded on the right, where no token looks; or on either side with
    attention_mask (B, T), 0 at padding and 1 elsewhere, from which follow the positions that the
    model counts; that its layers heed the mask is the model's affair (RecurrentGemma's recurrence
    does not). A supervised row that begins with the padding token (the end of sequence, if the
    config names none) is refused without a mask: one of ones says that the token is text.

    Whatever the model does to its logits stays in force. TypeError, ValueError for what does not
    fit; UserError for padding as above, and for a model that is no causal LM or does not call its
    head once, with (B, T, d).
    """
    owner = _owner(model)
    inputs = model_inputs(owner, input_ids, supervised, attention_mask)
    with _supervised_input(owner, supervised, lambda hidden: hidden):
        return model(**inputs, use_cache=False).logits[0]


def supervised_hidden(
    model: nn.Module, input_ids: Tensor, supervised: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Inputs (N, d) of the vocabulary projection at the supervised positions, unprojected.

    Arguments as in `supervised_logits`, which are `head_of(model).logits` of this; raises what both
    do.
    """
    owner = _owner(model)
    inputs = model_inputs(owner, input_ids, supervised, attention_mask)
    projection = _linear(owner)
    untried = _known_map(owner, projection) is None
    kept: list[Tensor] = []
    probes: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        kept.append(hidden)
        if untried:
            probes.append(_probe_rows(projection.weight, hidden))
        # None of the hidden states is projected; that of `cat` is the graph, where DDP seeks it.
        return torch.cat([hidden[:0], *probes])

    with _supervised_input(owner, supervised, keep):
        logits = model(**inputs, use_cache=False).logits
    if untried:
        _try(owner, projection, probes[0], logits[0].detach())
    return kept[0]


# projection -> (what the config said, the map found), for as long as the projection lives.
_found: WeakKeyDictionary[nn.Module, tuple[list[ScaleAndCap], ScaleAndCap]] = WeakKeyDictionary()


def _known_map(owner: nn.Module, projection: nn.Module) -> ScaleAndCap | None:
    """The map this projection was found to have; None if never tried, or the config changed."""
    said, found = _found.get(projection, (None, None))
    return found if said == _candidate_maps(owner) else None


def _candidate_maps(owner: nn.Module) -> list[ScaleAndCap]:
    """What the config may mean, the likeliest first; without a word of a map, the identity."""
    config = owner.config.get_text_config()
    scales = [s for key in _SCALES if isinstance(s := getattr(config, key, None), int | float)]
    caps = [c for key in _CAPS if isinstance(c := getattr(config, key, None), int | float)]
    scales = [f for s in scales if s not in (0, 1) for f in (s, 1 / s)]
    return [ScaleAndCap(s, c) for c in [*caps, None] for s in [*scales, 1.0] if c != 0]


@torch.no_grad()
def _try(owner: nn.Module, projection: nn.Module, probe: Tensor, logits: Tensor) -> None:
    """Find the map that takes `probe` (P, d) to the model's `logits` (P, V), or refuse."""
    weight, bias = _whole(owner, projection)
    maps = _candidate_maps(owner)
    dtypes = {logits.dtype, weight.dtype, probe.dtype}
    if torch.is_autocast_enabled(probe.device.type):
        dtypes.add(torch.get_autocast_dtype(probe.device.type))
    tolerance = max(1e-5, *(4 * torch.finfo(dtype).eps for dtype in dtypes))
    for found in maps:
        expected = Head(weight, bias, found).logits(probe).to(logits.dtype)
        if expected.shape == logits.shape:
            error = (logits - expected).abs().amax(1)
            if (error <= tolerance * logits.abs().amax(1)).all():
                _found[projection] = maps, found
                return
    raise UserError(
        f"{type(owner).__name__}: its logits are not a projection with a scale or a soft-cap, so "
        "the restricted loss would miss what it does to them",
        "Use the full objective, or a family such as Qwen3, Llama or Gemma",
    )


@torch.no_grad()
def _probe_rows(weight: Tensor, hidden: Tensor) -> Tensor:
    """Rows (P, d) like `hidden` whose logits are small, large and zero, for a map to show in."""
    dice = torch.Generator().manual_seed(0)
    rows = torch.randn(len(_PROBE_PEAKS), hidden.shape[-1], generator=dice).to(weight)
    peaks = F.linear(rows, weight).abs().amax(1, keepdim=True).clamp(min=1e-3)  # (P, 1)
    return (rows * (peaks.new_tensor(_PROBE_PEAKS)[:, None] / peaks)).to(hidden)


def _owner(model: nn.Module) -> nn.Module:
    """The causal LM itself inside wrappers of DDP, peft and torch.compile."""
    name = type(model).__name__
    while not hasattr(model, "get_output_embeddings") and hasattr(model, "module"):
        model = model.module  # DDP hides what it wraps
    method = getattr(model, "get_output_embeddings", None)
    if method is None or method() is None:
        raise UserError(f"{name}: no vocabulary projection", "Use a causal language model")
    owner = method.__self__  # peft and OptimizedModule hand out what they wrap
    if owner.config.is_encoder_decoder:
        raise UserError(
            f"{type(owner).__name__}: an encoder-decoder", "Use a causal language model"
        )
    return owner


def _linear(owner: nn.Module) -> nn.Linear:
    head = owner.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        kind, dtype = type(head), getattr(getattr(head, "weight", None), "dtype", "no weight")
        raise UserError(
            f"{type(owner).__name__}: its vocabulary projection is {kind.__module__}."
            f"{kind.__name__} ({dtype}), not a floating torch.nn.Linear",
            "Leave it out of adapters and quantisation",
        )
    return head


def _whole(owner: nn.Module, projection: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, unless FSDP holds them in shards."""
    weight = projection.weight
    if weight.ndim != 2 or hasattr(weight, "full_tensor"):
        raise UserError(
            f"{type(owner).__name__}: its vocabulary projection is sharded",
            "With FSDP2, leave it to the root's group, whole after forward, and call "
            "supervised_hidden first",
        )
    return weight, projection.bias


@contextmanager
def _supervised_input(
    owner: nn.Module, supervised: Tensor, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within, the head projects `change` of its input (N, d) at the supervised positions, as a
    batch of one. It must be called once."""
    calls = 0

    def hook(_, args: tuple) -> tuple:
        nonlocal calls
        calls += 1
        if args[0].shape[:-1] != supervised.shape:
            raise UserError(
                f"{type(owner).__name__}: projects {tuple(args[0].shape)} for tokens "
                f"{tuple(supervised.shape)}, not one hidden state for each",
                "Use a plain causal language model, without virtual tokens",
            )
        return change(args[0][supervised.to(args[0].device)])[None], *args[1:]

    handle = owner.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise UserError(
            f"{type(owner).__name__}: its forward calls the vocabulary projection {calls} times, "
            "not once",
            "Use a family such as Qwen3, Llama or Gemma",
        )


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Within, a forward pass leaves nothing behind: no graph, no random numbers, no compilation."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
