"""The cost model against its closed form."""

from dataclasses import replace

import pytest

from lrmoclip.cost.flops import forward, head_share, training
from tests.cost.made import FULL, LORA, RESTRICTED, SMOLLM2, shape

QWEN3_4B = replace(shape(SMOLLM2), body=3_600_000_000, head=390_000_000, d=2560)


def test_the_head_is_a_tenth_of_a_step_of_qwen3_4b():
    assert head_share(QWEN3_4B, 1.0) == pytest.approx(0.39 / 3.99)


def test_flops_follow_the_cost_model():
    full = 6 * (3.6e9 + 0.5 * 0.39e9)
    assert training(FULL, QWEN3_4B, 0.5, 0.0) == pytest.approx(full)
    assert training(RESTRICTED, QWEN3_4B, 0.5, 20) == pytest.approx(6 * (3.6e9 + 0.5 * 2560 * 20))
    assert training(LORA, QWEN3_4B, 0.5, 0.0) == pytest.approx(full * 2 / 3)
    assert forward(QWEN3_4B, 0.5) == pytest.approx(full / 3)
