"""Stage 0 against a plain forward pass, and a Stage-1 step against full fine-tuning, on real
architectures with random weights."""

import torch

from lrmoclip.config.parts import Stage0
from lrmoclip.core.optim import MoClip
from lrmoclip.cost import flops
from lrmoclip.cost.stopwatch import time_in_turns
from lrmoclip.data.batches import Encoded, collate
from lrmoclip.methods import Method
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.full import Full
from lrmoclip.methods.objectives.restricted import Restricted
from lrmoclip.models.shapes import Shape, shape_of_model
from lrmoclip.speed.loss import Problem
from lrmoclip.speed.measure import against
from lrmoclip.train.stage0 import collect_batch

SHARES = (1.0, 0.5, 0.2)
STAGE0 = {"coverage": 0.99, "k_min": 1, "k_max": 64}
FULL, RESTRICTED, METHOD = "full, AdamW", "restricted, AdamW", "restricted, MoClip"
SLACK = 1.1  # over the bound of the cost model


def llama_135m():
    """The shape of SmolLM2-135M: 106M parameters in the body, 28M in the tied head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def qwen3_micro():
    """The shape of the micro scale's base."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=8192, hidden_size=128, intermediate_size=384, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


# Name: model, records and tokens a batch, mean set size, and threads if not all: the micro scale
# trains on one.
SHAPES = {"micro": (qwen3_micro, 40, 24, 32, 1), "135M": (llama_135m, 4, 96, 64, None)}


def records(vocabulary: int, count: int, tokens: int, share: float) -> Encoded:
    """Random records of `tokens` inputs each, the last `share` of them supervised."""
    dice = torch.Generator().manual_seed(0)
    ids = list(torch.randint(2, vocabulary, (count, tokens + 1), generator=dice))
    prompt = tokens + 1 - round(share * tokens)
    return Encoded(ids, [prompt] * count, pad_id=0, eos_id=1)


def stage0(device: torch.device) -> list[dict]:
    """Half of the positions supervised; the plain pass projects every position."""
    model = llama_135m().to(device).eval()
    data = records(model.config.vocab_size, 4, 128, 0.5)
    settings = Stage0(**STAGE0, batch_size=len(data))

    @torch.no_grad()
    def plain():
        batch = collate(data, list(range(len(data)))).to(device)
        model(input_ids=batch.input_ids, use_cache=False)

    contestants = {
        "stage 0": lambda: collect_batch(model, data, 0, settings),
        "plain forward": plain,
    }
    seconds = time_in_turns(contestants, rounds=9)
    note = "4 records of 128 tokens, k_max 64"
    return [
        against("stage 0", "135M, share 0.5", seconds, *contestants, target="<= 1.0", note=note)
    ]


def stage1(device: torch.device) -> list[dict]:
    """The bound is the cost model's ratio of FLOPs; it leaves the optimizer out."""
    rows, all_threads = [], torch.get_num_threads()
    for name, (make, count, tokens, mean_k, threads) in SHAPES.items():
        torch.set_num_threads(threads or all_threads)
        model = make().to(device).train()
        shape = shape_of_model(model)
        optimizers = {
            "AdamW": torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True),
            "MoClip": MoClip(model.parameters(), lr=1e-6),
        }
        for share in SHARES:
            data = records(model.config.vocab_size, count, tokens, share)
            steps = _contestants(model, optimizers, data, mean_k, device)
            seconds = time_in_turns(steps, rounds=15 if name == "micro" else 5)
            bound = _bound(shape, share, mean_k)
            for mine in (RESTRICTED, METHOD):
                target = f"<= {SLACK * bound:.3f}" if mine == RESTRICTED else None
                note = f"{count * tokens} tokens a step, bound {bound:.3f}"
                note += f", {threads} thread" if threads else ""
                case = f"{name}, share {share}"
                rows.append(against("stage-1 step", case, seconds, mine, FULL, target, note=note))
    torch.set_num_threads(all_threads)
    return rows


def _contestants(model, optimizers, data: Encoded, mean_k: int, device) -> dict:
    batch = collate(data, list(range(len(data)))).to(device)
    vocabulary = model.config.vocab_size
    problem = Problem(len(batch.gold), 1, vocabulary, mean_k, 1.0, device)
    batch.targets[batch.supervised] = problem.gold
    full, restricted = Full().start(data), Restricted().start(data)
    dice = torch.Generator().manual_seed(0)

    def step(loss, sets, optimizer):
        loss.of(Context(model, batch, sets, None, dice)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        FULL: lambda: step(full, None, optimizers["AdamW"]),
        RESTRICTED: lambda: step(restricted, problem.sets, optimizers["AdamW"]),
        METHOD: lambda: step(restricted, problem.sets, optimizers["MoClip"]),
    }


def _bound(shape: Shape, share: float, mean_k: int) -> float:
    ours = flops.training(Method(label=RESTRICTED, objective=Restricted()), shape, share, mean_k)
    return ours / flops.training(Method(label=FULL), shape, share, 0.0)
