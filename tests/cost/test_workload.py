"""What a scale's jobs read, by records and by stated averages."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.config import load
from lrmoclip.core import artefacts, files
from lrmoclip.core.errors import UserError
from lrmoclip.cost.plan.workload import LONGEST, Load, Workload
from lrmoclip.data import records
from tests.conftest import TINY
from tests.cost.made import CONFIGS


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_padding_is_the_expected_largest_of_a_batch(lengths, batch):
    lengths = tuple(sorted(lengths))
    load = Load(len(lengths), sum(lengths) / len(lengths), 1, lengths[-1], 1, lengths=lengths)
    draws = list(itertools.product(lengths, repeat=batch))

    assert load.padded(batch) == pytest.approx(sum(map(max, draws)) / len(draws))


def test_records_that_are_there_are_counted(tmp_path):
    """The micro world's tokenizer has a token a word, and an end of sequence is a target."""
    train = [
        {"id": "1", "prompt": "a b c", "answer": "d"},
        {"id": "2", "prompt": "a", "answer": "b c d e"},
    ]
    items = [{"id": "3", "prompt": "a b", "answer": "c", "choices": ["c", "d", "e"], "gold": 0}]
    with artefacts.folder(tmp_path / "data", records.KIND) as made:
        files.write_jsonl(made.path / "telecom" / "train.jsonl", train)
        files.write_jsonl(made.path / "micro_mmlu" / "test.jsonl", items)
    work = Workload(load(TINY), tmp_path)

    assert work.load("telecom") == Load(2, 4.5, 3.5, 5, 5, lengths=(4, 5))
    assert work.load("mmlu", "test") == Load(1, 3, 2, 3, 2, options=3, lengths=(3,))


def test_what_is_stated_is_taken_where_there_are_no_records():
    work = Workload(load(CONFIGS / "paper.yaml"))

    telecom = work.load("telecom")
    assert (telecom.records, telecom.tokens, telecom.supervised) == (7500, 72, 11)
    assert telecom.rows(4).tokens == LONGEST * 72 and telecom.padded(64) == 72
    assert work.load("replay").records == 5000  # as many as the data draw
    assert work.load("telecom", "validation").records == 400
    assert work.load("bbh", "validation").records == 0  # it has no such split


def test_a_set_of_which_nothing_is_known_is_named():
    with pytest.raises(UserError, match=r"tiny\.yaml: plan\.telecom: nothing is known.*State"):
        Workload(load(TINY)).load("telecom")
