"""Base models of several families (claim C7): each goes through every arrow to its scores."""

import json

import pytest

from lrmoclip.models.scratch import FAMILIES
from tests.conftest import TINY
from tests.support.made import load, run

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
    config = edit(TINY, {"bases/qwen3-s0/family": family})
    base, store, out = (tmp_path / name for name in ("base", "stage0", "seed1"))
    given = {"config": config, "base": "qwen3-s0", "data": tiny_data}
    bench = {**given, "domain": "telecom", "checkpoint": base}
    point = {"method": "lr_moclip", "seed": 1, "out": out}

    assert run("base", **given, out=base) == 0
    assert run("stage0", **bench, out=store) == 0
    assert run("train", **bench, **point, store=store) == 0
    assert run("evaluate", **given, domain="telecom", **point, models=out / "model") == 0

    model, _ = load(base)
    assert type(model).__name__ == KINDS[family]
    before, after = model.state_dict(), load(out / "model")[0].state_dict()
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {(r["benchmark"], r["metric"]) for r in rows} >= {
        ("telecom", "acc"),
        ("micro_math", "exact_match"),
    }
