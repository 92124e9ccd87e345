"""Configs that someone might write: each mistake is one line with file, key and value."""

import itertools

import pytest

from lrmoclip.config import load_chosen
from lrmoclip.config import scale as config
from lrmoclip.core.errors import UserError
from tests.conftest import METHODS, TINY, named

BASE = "bases/qwen3-s0"
# (changes of a good scale, what the error names)
SCALES = [
    ({"scale": "reference"}, "'reference' names another folder"),
    ({"scale": "logs"}, "'logs' names another folder"),
    ({"scale": "../x"}, "scale: '../x'"),
    ({"scale": 5}, "scale: 5"),
    ({"scale": None}, "scale: None"),
    ({"bases": {}}, "bases: {}"),
    ({"bases": []}, "bases: []"),
    ({"bases": {"..": {"family": "qwen3"}}}, "bases"),
    ({"bases": {".": {"family": "qwen3"}}}, "bases"),
    ({"bases": {"a/b": {"family": "qwen3"}}}, "bases"),
    ({"bases": {"x": {}}}, "bases.x"),
    ({"bases": {"x": None}}, "bases.x"),
    ({f"{BASE}/hidden": 1}, "hidden 1 with heads 2"),
    ({f"{BASE}/hidden": 33}, "hidden 33 with heads 2"),
    ({f"{BASE}/heads": 0}, "heads: 0"),
    ({f"{BASE}/seed": 2**70}, "seed: 1180591620717411303424"),
    ({f"{BASE}/seed": -1}, "seed: -1"),
    ({f"{BASE}/seed": True}, "seed: True"),
    ({f"{BASE}/vocabulary": 100}, "vocabulary: 100"),
    ({f"{BASE}/vocabulary": 10**12}, "vocabulary: 1000000000000"),
    ({f"{BASE}/lr": "3e-3"}, "lr: '3e-3'"),
    ({f"{BASE}/lr": 0.0}, "lr: 0.0"),
    ({f"{BASE}/lr": float("inf")}, "lr: inf"),
    ({f"{BASE}/steps": 1.5}, "steps: 1.5"),
    ({"data": {"generator": "magic"}}, "generator should be one of micro, published"),
    ({"data": "micro"}, "data: 'micro'"),
    ({"data/sizes/replay": 401}, "replay: 401 records of 400"),
    ({"data/sizes/test": 0}, "data.sizes.test: 0"),
    ({"data/seed": 2**31}, "data.seed"),
    ({"general/mmlu/task": "../../etc/passwd"}, "general.mmlu.task"),
    ({"general/mmlu/task": "/etc/passwd"}, "general.mmlu.task"),
    ({"general/mmlu/chance": 25}, "general.mmlu.chance: 25"),
    ({"general/mmlu/kind": "oracle"}, "general.mmlu.kind: 'oracle'"),
    ({"domains": {}}, "domains: {}"),
    ({"domains/nl2sql/max_new_tokens": 512}, "max_new_tokens 512"),
    ({"methods": []}, "methods: []"),
    ({"methods": ["full_ft", "full_ft"]}, "'full_ft' stands twice"),
    ({"methods": [None]}, "methods.0: None"),
    ({"methods": "full_ft"}, "methods: 'full_ft'"),
    ({"seeds": [1.0]}, "seeds.0: 1.0"),
    ({"seeds": [1, 1]}, "seeds: 1 stands twice"),
    ({"seeds": [0]}, "seeds.0: 0"),
    ({"seeds": [True]}, "seeds.0: True"),
    ({"seeds": ["1"]}, "seeds.0: '1'"),
    ({"seeds": [2**70]}, "seeds.0"),
    ({"seeds_per_job": 0}, "seeds_per_job: 0"),
    ({"stage0/k_max": 8.0}, "stage0.k_max: 8.0"),
    ({"stage0/k_max": "8"}, "stage0.k_max: '8'"),
    ({"stage0/k_max": 10**30}, "stage0.k_max"),
    ({"stage0/coverage": 0}, "stage0.coverage: 0"),
    ({"stage0": None}, "stage0: None"),
    ({"stage1/epochs": 1e300}, "stage1.epochs: 1e+300"),
    ({"stage1/epochs": 0}, "stage1.epochs: 0"),
    ({"stage1/batch_size": 0}, "stage1.batch_size: 0"),
    ({"stage1/warmup": 1.1}, "stage1.warmup: 1.1"),
    ({"stage1/betas": [0.9, 0.99, 0.999]}, "stage1.betas"),
    ({"stage1/weight_decay": -0.1}, "stage1.weight_decay: -0.1"),
    ({"stage1/length_buckets": 1}, "stage1.length_buckets: 1"),
    ({"evaluation/max_new_tokens": 512}, "max_new_tokens 512"),
    ({"evaluation/backend": "magic"}, "evaluation.backend: 'magic'"),
    ({"tuning/learning_rates": [0.1]}, "tuning.learning_rates"),
    ({"tuning/learning_rates": [0.1, 0.1]}, "0.1 stands twice"),
    ({"tuning/learning_rates": [0.1, 2.0]}, "tuning.learning_rates.1: 2.0"),
    ({"threads/train": 1e9}, "threads.train: 1000000000.0"),
    ({"threads/train": 10**9}, "threads.train: 1000000000"),
    ({"threads/train": 0}, "threads.train: 0"),
    ({"precision": "float16"}, "precision: 'float16'"),
    ({"prompting": {"chat_template": True, "thinking": True}}, "no room for thought"),
    ({"prompting": {"chat_template": "yes"}}, "prompting.chat_template: 'yes'"),
    ({"gpus": 10**6}, "gpus: 1000000"),
    ({"methods_file": ""}, "methods_file: ''"),
    ({"methods_file": "none.yaml"}, "none.yaml: no such file"),
    ({"methods_file": "."}, "no such file"),
    ({5: 1}, "unknown key 5"),
    ({None: 1}, "unknown key None"),
]


@pytest.mark.parametrize(("changes", "words"), SCALES, ids=named)
def test_a_hostile_scale_is_refused_in_one_line(edit, changes, words):
    plain = {key: value for key, value in changes.items() if isinstance(key, str)}
    path = edit(TINY, plain)
    for key, value in changes.items():
        if not isinstance(key, str):
            path.write_text(f"{path.read_text()}\n{'null' if key is None else key}: {value}\n")

    with pytest.raises(UserError) as raised:
        config.load(path)

    message = str(raised.value)
    assert "\n" not in message and words in message, message


LETTERS = "abcdefghi"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise(LETTERS)
)
# Texts of a whole file, and what the error says.
TEXTS = [
    ("a: &a [*a]", "an alias within what it stands for"),
    ("a: &a {b: *a}", "an alias within what it stands for"),
    ("a: &a\n  <<: *a", "not YAML"),
    (BOMB, "its aliases stand for more than 100,000 values"),
    ("[" * 5000, "nested more than 50 levels"),
    ("{a: " * 5000, "nested more than 50 levels"),
    ("- " * 5000 + "x", "nested more than 50 levels"),
    ("scale: tiny\nscale: micro", "line 2: 'scale' stands twice"),
    ("scale: tiny\nstage0: {k_max: 1, k_min: 1, k_max: 8}", "line 2: 'k_max' stands twice"),
    ("scale: 2024-13-45", "not YAML"),
    ("scale: !!python/object/apply:os.system ['touch pwned']", "not YAML"),
    ("!!python/name:os.system", "not YAML"),
    ("scale: *nowhere", "not YAML"),
    ("scale: [", "not YAML"),
    ("scale: \x00", "not YAML"),
    ("? [a, b]\n: c", "not YAML"),
    ("a: 1\n---\nb: 2", "not YAML"),
    ("scale: .inf", "scale: inf"),
]


@pytest.mark.parametrize(("text", "words"), TEXTS, ids=[words for _, words in TEXTS])
def test_hostile_yaml_is_refused_in_one_line(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scale.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(UserError) as raised:
        config.load(tmp_path / "scale.yaml")

    message = str(raised.value)
    assert "\n" not in message and words in message, message
    assert [p.name for p in tmp_path.iterdir()] == ["scale.yaml"]


OBJECTIVE = "methods/lr_moclip/objective"
METHOD = [
    ({"methods": {}}, "methods: {}"),
    ({"methods/lr_moclip": None}, "methods.lr_moclip: None"),
    ({"methods/stage0": {"label": "x"}}, "'stage0' names another folder"),
    ({"methods/A": {"label": "x"}}, "methods"),
    ({"methods/a-b": {"label": "x"}}, "methods"),
    ({"methods/x": {"label": ""}}, "methods.x.label: ''"),
    ({OBJECTIVE: "restricted"}, "'restricted'"),
    ({OBJECTIVE: {"name": None}}, "name should be one of"),
    ({OBJECTIVE: {"name": ["full"]}}, "name should be one of"),
    ({f"{OBJECTIVE}/k_max": 8.0}, "k_max: 8.0"),
    ({f"{OBJECTIVE}/coverage": True}, "coverage: True"),
    ({f"{OBJECTIVE}/denominator": "all"}, "denominator: 'all'"),
    ({"methods/lora/adapter/rank": 0}, "rank: 0"),
    ({"methods/lora/adapter/alpha": float("nan")}, "alpha: nan"),
    ({"methods/ewc/penalty/strength": -1}, "strength: -1"),
    ({"methods/full_moclip/optimizer/max_angle": 0}, "max_angle: 0"),
    ({"methods/full_moclip/optimizer/step": "adamw"}, "step: 'adamw'"),
    ({"methods/replay/replay": 1e9}, "replay: 1000000000.0"),
]


@pytest.mark.parametrize(("changes", "words"), METHOD, ids=named)
def test_a_hostile_method_is_refused_in_one_line(edit, changes, words):
    path = edit(METHODS, changes)

    with pytest.raises(UserError) as raised:
        config.load(edit(TINY, {"methods_file": path.name}))

    message = str(raised.value)
    assert "\n" not in message and words in message, message


CHOSEN = [
    ({"seeds": "1,01"}, "--config seeds"),
    ({"seeds": "١"}, "--config seeds"),  # an Arabic one
    ({"seeds": "²"}, "--config seeds"),
    ({"seeds": "1e3"}, "--config seeds"),
    ({"seeds": "+1"}, "--config seeds"),
    ({"seeds": "1_000"}, "--config seeds"),
    ({"seeds": str(2**70)}, "--config seeds"),
    ({"seeds": True}, "--config seeds"),
    ({"seeds": [1.0]}, "--config seeds"),
    ({"seeds": None}, "--config seeds"),
    ({"methods": "base"}, "always there"),
    ({"methods": "../x"}, "unknown method '../x'"),
    ({"methods": None}, "unknown method 'None'"),
    ({"domains": "law"}, "unknown domain 'law'"),
    ({"domains": ""}, "--config domains"),
    ({"scales": ""}, "--config scales"),
    ({"scales": "../config/micro"}, "unknown scale"),
    ({"scales": "methods.yaml"}, "unknown scale"),
    ({"scales": "micro,micro"}, "--config scales"),
    ({5: 1}, "unknown key 5"),
]


@pytest.mark.parametrize(("chosen", "words"), CHOSEN, ids=named)
def test_a_hostile_choice_is_refused_in_one_line(chosen, words):
    with pytest.raises(UserError) as raised:
        load_chosen(METHODS.parent, chosen)

    message = str(raised.value)
    assert "\n" not in message and words in message, message


RATES = [
    ("scale,base,domain,method,lr\nmicro,b,d,m,0.1", "line 2: of the scale 'micro', not 'tiny'"),
    ("base,domain,method,lr\nb,d,m,0.1\nb,d,m,0.2", "line 3: a second rate of b d m"),
    ("base,domain,method,lr\nb,d,m,1e300", "line 2: broken"),
    ("base,domain,method,lr\nb,d,m,inf", "line 2: broken"),
]


@pytest.mark.parametrize(("text", "words"), RATES, ids=[words for _, words in RATES])
def test_hostile_learning_rates_are_refused(edit, tmp_path, text, words):
    (tmp_path / "rates.csv").write_text(text)
    scale = config.load(edit(TINY, {"learning_rates": "rates.csv"}))

    with pytest.raises(UserError, match=words):
        scale.chosen("b", "d", "m")
