"""Base models of several families (claim C7): each goes through every arrow to its scores."""

import json

import pytest

from lrmoclip.cli import commands
from lrmoclip.config import scale as config
from lrmoclip.models.scratch import FAMILIES
from lrmoclip.train.workbench import Workbench
from tests.conftest import TINY
from tests.support.made import load

KINDS = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
}


def test_every_family_is_tried():
    assert KINDS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", KINDS)
def test_a_family_goes_from_pretraining_to_its_scores(family, edit, tiny_data, tmp_path):
    scale = config.load(edit(TINY, {"bases/qwen3-s0/family": family}))
    base, store, run = (tmp_path / name for name in ("base", "stage0", "seed1"))

    commands.base(scale, "qwen3-s0", tiny_data, base)
    bench = Workbench(scale, "qwen3-s0", "telecom", base, tiny_data, store)
    commands.stage0(bench, store)
    commands.train(bench, "lr_moclip", [1], [run])
    place = {"data": tiny_data, "models": [run / "model"], "outs": [run], "seeds": [1]}
    commands.evaluate(scale, "qwen3-s0", "telecom", "lr_moclip", **place)

    assert type(bench.model).__name__ == KINDS[family]
    before, after = bench.model.state_dict(), load(run / "model")[0].state_dict()
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    assert {(r["benchmark"], r["metric"]) for r in rows} >= {
        ("telecom", "acc"),
        ("micro_math", "exact_match"),
    }
