"""The optimizer `muonclip`: its step against torch's Muon and a loop, the logits that it clips
against those that reach the attention."""

import math
import statistics

import pytest
import torch
import transformers

from lrmoclip.core.errors import UserError
from lrmoclip.methods.optimizers.muonclip import MuonClip
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.run_state import RunState
from tests.support.runs import LORA, make_model, make_records, make_run

LR, DECAY, BETA, BETAS = 0.02, 0.1, 0.95, (0.8, 0.95)
TAU = 1e-3  # below most logits of a fresh model
AXES = {"optimizer": {"name": "muonclip", "tau": TAU}}
HEADS, SIZE, HIDDEN = 4, 6, 24
ALONE = pytest.mark.filterwarnings("ignore:muonclip. this is Muon alone")


def make_family(name: str, layers: int = 1):
    torch.manual_seed(3)
    keys = {"num_key_value_heads": {"grouped": 2, "gemma": 1}.get(name, HEADS), "head_dim": SIZE}
    kind = {"gpt_neox": "GPTNeoX", "gemma": "Gemma", "gpt2": "GPT2"}.get(name, "Llama")
    more = {"attention_bias": True} if name == "biased" else {}
    if name == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_embd=HIDDEN, n_layer=1, n_head=HEADS)
        )
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, hidden_size=HIDDEN, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=HEADS, max_position_embeddings=32, tie_word_embeddings=True,
        pad_token_id=0,
        **({} if name == "gpt_neox" else keys), **more,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():  # biases too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.train()


FAMILIES = ["llama", "biased", "grouped", "gemma", "gpt_neox"]


def attention_of(model) -> torch.nn.Module:
    [found] = [m for m in model.modules() if type(m).__name__.endswith("Attention")]
    return found


def build(model, tau: float, lr: float = 0.0) -> torch.optim.Optimizer:
    entry, named = MuonClip(tau=tau), dict(model.named_parameters())
    return entry.build(model, named, lr=lr, betas=BETAS, weight_decay=DECAY)


def tops(model, ids: torch.Tensor) -> torch.Tensor:
    """The largest causal logit of each head, from what is given to torch's attention."""
    true, found = torch.nn.functional.scaled_dot_product_attention, []

    def spy(query, key, value, *args, scale=None, **more):
        whole = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        for row in range(query.shape[2]):
            logits = (query[:, :, row, None] * whole[:, :, : row + 1]).sum(-1) * scale
            found.append(logits.amax((0, 2)))
        return true(query, key, value, *args, scale=scale, **more)

    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        model.eval()(input_ids=ids)
    model.train()
    return torch.stack(found).amax(0)


def make_ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 50, (3, 9), generator=torch.Generator().manual_seed(seed))


def backward(model, ids: torch.Tensor) -> None:
    model(input_ids=ids, labels=ids).loss.backward()


def queries_and_keys(model) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of each head, (heads, size, hidden)."""
    attention = attention_of(model)
    if hasattr(attention, "query_key_value"):
        rows = attention.query_key_value.weight.detach().clone().view(HEADS, 3, SIZE, HIDDEN)
        return rows[:, 0], rows[:, 1]
    both = (attention.q_proj.weight, attention.k_proj.weight)
    return tuple(w.detach().clone().view(-1, SIZE, HIDDEN) for w in both)


@pytest.mark.parametrize("name", FAMILIES)
def test_after_a_step_no_head_has_a_logit_above_tau(name):
    model, ids = make_family(name), make_ids()
    before = tops(model, ids)
    tau = statistics.median(before.tolist())
    optimizer = build(model, tau)
    backward(model, ids)
    optimizer.step()

    wanted = before.clamp(max=tau)
    torch.testing.assert_close(tops(model, ids), wanted, rtol=1e-5, atol=1e-6)
    found = MuonClip().measures(optimizer)
    assert found["qk_clipped"] == (before > tau).sum() > 0
    assert found["max_logit"] == pytest.approx(before.max().item(), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_queries_and_keys_of_clipped_heads_are_scaled(name):
    model, ids = make_family(name), make_ids()
    before, (q, k) = tops(model, ids), queries_and_keys(model)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    tau = statistics.median(before.tolist())
    optimizer = build(model, tau)
    backward(model, ids)
    optimizer.step()

    factors = (tau / before).clamp(max=1)[:, None, None]
    new_q, new_k = queries_and_keys(model)
    shared = len(k) < len(q)
    wanted_q, wanted_k = (q * factors, k) if shared else (q * factors.sqrt(), k * factors.sqrt())
    torch.testing.assert_close(new_q, wanted_q, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(new_k, wanted_k, rtol=1e-5, atol=1e-7)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, weights[n])}
    scaled = ("q_proj",) if shared else ("q_proj", "k_proj", "query_key_value")
    assert changed == {n for n in weights if any(part in n for part in scaled)}
    if name == "gpt_neox":
        [old] = [w for n, w in weights.items() if n.endswith("query_key_value.weight")]
        new = attention_of(model).query_key_value.weight
        values = [w.view(HEADS, 3, SIZE, HIDDEN)[:, 2] for w in (old, new)]
        assert torch.equal(*values)


def test_below_tau_nothing_is_scaled():
    model, ids = make_family("llama"), make_ids()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build(model, tau=100.0)
    backward(model, ids)
    optimizer.step()

    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert MuonClip().measures(optimizer)["qk_clipped"] == 0


def test_the_largest_logit_is_of_all_passes_of_one_step():
    model, batches = make_family("llama"), [make_ids(seed) for seed in range(3)]
    each = torch.stack([tops(model, ids) for ids in batches])
    assert len(set(each.argmax(0).tolist())) > 1
    optimizer = build(model, tau=100.0)
    for ids in batches:
        backward(model, ids)
    optimizer.step()
    assert MuonClip().measures(optimizer)["max_logit"] == pytest.approx(each.max().item(), rel=1e-5)
    least = each.max(1).values.argmin()
    backward(model, batches[least])
    optimizer.step()
    assert MuonClip().measures(optimizer)["max_logit"] == pytest.approx(
        each[least].max().item(), rel=1e-5
    )


def test_logits_of_a_model_that_is_measured_do_not_count():
    model = make_family("llama")
    optimizer = build(model, tau=100.0)
    model.eval()(input_ids=make_ids())
    optimizer.step()
    assert MuonClip().measures(optimizer)["max_logit"] == -math.inf


class Matrix(torch.nn.Module):
    """Beside attention that makes no logits, a matrix."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(
            torch.randn(shape, generator=dice, dtype=torch.double).to(dtype)
        )
        self.attention = attention_of(make_family("llama")).requires_grad_(False)


def stepped(shape, dtype, gradients) -> torch.Tensor:
    model = Matrix(shape, dtype)
    with pytest.warns(UserWarning, match="this is Muon alone"):
        optimizer = MuonClip().build(
            model, {"weight": model.weight}, lr=LR, betas=BETAS, weight_decay=DECAY
        )
    for g in gradients:
        model.weight.grad = g.to(dtype)
        optimizer.step()
    return model.weight.detach()


def make_gradients(shape) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=dice, dtype=torch.double) for _ in range(6)]


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (5, 5)])
def test_its_matrices_move_as_with_torchs_muon(shape):
    """Torch's computes in bfloat16."""
    gradients, start = make_gradients(shape), Matrix(shape, torch.float32).weight
    theirs = torch.nn.Parameter(start.detach().clone())
    muon = torch.optim.Muon(
        [theirs], lr=LR, weight_decay=DECAY, momentum=BETA, nesterov=False,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    for g in gradients:
        theirs.grad = g.float()
        muon.step()

    ours, moved = stepped(shape, torch.float32, gradients), theirs - start
    assert (ours - theirs).norm() < 0.02 * moved.norm()


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (5, 5)])
def test_its_matrices_move_as_the_paper_says(shape):
    a, b, c = 3.4445, -4.7750, 2.0315
    w, m, gradients = Matrix(shape, torch.double).weight.detach(), 0.0, make_gradients(shape)
    for g in gradients:
        m = BETA * m + g
        o = m / m.square().sum().sqrt()
        for _ in range(5):
            o = a * o + b * o @ o.T @ o + c * o @ o.T @ o @ o.T @ o
        w = w - LR * (o * math.sqrt(max(shape)) * 0.2 + DECAY * w)

    torch.testing.assert_close(stepped(shape, torch.double, gradients), w, rtol=1e-10, atol=1e-12)


def run_of(axes: dict, model=None, **more):
    return make_run(model or make_family("llama", 2), axes, TrainingSet(make_records()), **more)


@ALONE
@pytest.mark.parametrize("axes", [AXES, {**AXES, **LORA}], ids=["full", "lora"])
def test_a_run_moves_every_tensor_and_is_the_same_each_time(axes):
    run, again = run_of(axes), run_of(axes)
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    log = train(run, ProbeBatch(4))
    train(again, ProbeBatch(4))

    for name, p in run.parameters.items():
        assert not torch.equal(p, before[name]), name
        assert torch.equal(p, again.parameters[name]), name
    clipped = [row.get("qk_clipped", 0) for row in log[:-1]]
    assert all(clipped) if axes == AXES else not any(clipped)


@pytest.mark.parametrize(
    "settings", [{"gradient_checkpointing": True}, {"micro_batch": 1}], ids=["again", "cut"]
)
def test_it_does_not_matter_how_a_batch_is_computed(settings):
    """Cut into records, none is padded."""
    whole, other = run_of(AXES), run_of(AXES, settings=settings)
    for _ in range(3):
        want, found = whole.step(), other.step()
        assert found["qk_clipped"] == want["qk_clipped"] > 0
        assert found["max_logit"] == pytest.approx(want["max_logit"], rel=1e-4)


@pytest.mark.parametrize("axes", [AXES, {**AXES, **LORA}], ids=["full", "lora"])
def test_where_queries_are_normalised_or_not_trained_it_says_that_it_clips_nothing(axes):
    model = make_model() if axes == AXES else make_family("llama")  # of Qwen3
    with pytest.warns(UserWarning, match="QK-clip has nothing to act on"):
        run = run_of(axes, model)
    assert not {"qk_clipped", "max_logit"} & set(run.step())


def test_a_model_whose_heads_are_not_known_is_refused():
    with pytest.raises(UserError, match="no queries and keys that it knows in GPT2LMHeadModel"):
        build(make_family("gpt2"), tau=100.0)


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    state = RunState(tmp_path, {"data": "d"}, every=2)
    undisturbed, died, resumed = run_of(AXES), run_of(AXES), run_of(AXES)
    train(undisturbed)
    for _ in range(4):
        died.step()
    state.save(died, [])
    train(resumed, state=state)

    assert resumed.taken == undisturbed.taken == 6
    for name, p in undisturbed.parameters.items():
        assert torch.equal(p, resumed.parameters[name]), name
