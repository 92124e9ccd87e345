"""Lines of data that someone might write: each is named by file, line and field."""

import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data import records

GOOD = b'{"id": "a", "prompt": "p", "answer": "x", "choices": ["x", "y"], "gold": 0}'
# (the good line changed, or another line; what the error names)
BROKEN = [
    (b'{"id": "b", "prom', "not JSON"),
    (b"", "not JSON"),
    (b'["id", "prompt", "answer"]', "should be an object"),
    (b"7", "should be an object"),
    (b"NaN", "should be an object"),
    (b'{"id": "b", "prompt": "p"}', "no key 'answer'"),
    (b'{"id": "b"}', "no key 'prompt'"),
    ((b'"p"', b"3"), "prompt: 3"),
    ((b'"p"', b"null"), "prompt: None"),
    ((b'"p"', b'""'), "prompt: '' is blank"),
    ((b'"p"', b'"   "'), "prompt: '   ' is blank"),
    ((b'"p"', b'"\\n\\t"'), "is blank"),
    ((b'"p"', b'"\\ud800"'), "not JSON"),
    ((b'"p"', b'["p"]'), "prompt"),
    ((b'"answer": "x"', b'"answer": " "'), "answer: ' ' is blank"),
    ((b'"a"', b'" "'), "id: ' ' is blank"),
    ((b'"a"', b"1"), "id: 1"),
    ((b'["x", "y"]', b"null"), "choices: None"),
    ((b'["x", "y"]', b'"xy"'), "choices: 'xy'"),
    ((b'["x", "y"]', b"[]"), "choices"),
    ((b'["x", "y"]', b'["x"]'), "choices"),
    ((b'["x", "y"]', b'["x", ""]'), "choices.1"),
    ((b'["x", "y"]', b'["x", 2]'), "choices.1"),
    ((b'["x", "y"]', b'["x", "x"]'), "'x' stands twice"),
    ((b'["x", "y"]', b'{"0": "x"}'), "choices"),
    ((b', "choices": ["x", "y"]', b""), "choices and gold need each other"),
    ((b', "gold": 0', b""), "choices and gold need each other"),
    ((b'"gold": 0', b'"gold": 7'), "gold: 7 of 2 choices"),
    ((b'"gold": 0', b'"gold": 2'), "gold: 2 of 2 choices"),
    ((b'"gold": 0', b'"gold": -1'), "gold: -1"),
    ((b'"gold": 0', b'"gold": true'), "gold: True"),
    ((b'"gold": 0', b'"gold": 0.0'), "gold: 0.0"),
    ((b'"gold": 0', b'"gold": "0"'), "gold: '0'"),
    ((b'"gold": 0', b'"gold": null'), "gold: None"),
    ((b'"gold": 0', b'"gold": 1'), "gold: choice 1 is 'y', the answer 'x'"),
    ((b'"gold": 0', b'"gold": 0, "database": "../secret"'), "database"),
    ((b'"gold": 0', b'"gold": 0, "database": "/etc/x"'), "database"),
    ((b'"gold": 0', b'"gold": 0, "database": ""'), "database"),
    ((b'"gold": 0', b'"gold": 0, "alternatives": "SELECT 1"'), "alternatives"),
    ((b'"gold": 0', b'"gold": 0, "alternatives": [1]'), "alternatives.0"),
    ((b'"gold": 0', b'"gold": 0, "empty": "no"'), "empty: 'no'"),
]


@pytest.mark.parametrize(("line", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_a_broken_record_is_named(tmp_path, line, words):
    path = tmp_path / "data.jsonl"
    broken = GOOD.replace(*line) if isinstance(line, tuple) else line
    assert broken != GOOD
    path.write_bytes(GOOD + b"\n" + broken.replace(b'"a"', b'"b"', 1) + b"\n")

    with pytest.raises(UserError) as raised:
        records.read(path)

    assert str(raised.value).startswith(f"{path}, line 2: ") and words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "a"}', "no key 'task'"),
        (b'{"id": "a", "task": "../x"}', "task"),
        (b'{"id": "a", "task": ""}', "task"),
    ],
)
def test_a_broken_document_is_named(tmp_path, line, words):
    (tmp_path / "test.jsonl").write_bytes(line + b"\n")

    with pytest.raises(UserError, match=words):
        records.read_documents(tmp_path / "test.jsonl")
