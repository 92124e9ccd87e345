"""Configs: what is wrong is said in one line that names file, key and the way out."""

import shutil

import pytest

from lrmoclip import config
from lrmoclip.core.errors import UserError
from lrmoclip.methods import Need
from tests.conftest import DROP, METHODS, TINY, named

SHIPPED = METHODS.parent
OBJECTIVE = "methods/lr_moclip/objective"


def message_of(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_config_is_valid():
    scale = config.load(SHIPPED / "micro.yaml")

    assert scale.name == "micro"
    assert len(scale.seeds) >= 2
    assert {"full_ft", "lr_moclip"} <= set(scale.methods) <= set(scale.points)


def test_a_method_has_the_defaults_of_the_axes_it_does_not_name(tiny_scale):
    point = tiny_scale.method("lr_moclip")

    assert point.identity.keys() == {"objective", "optimizer", "adapter", "penalty", "replay"}
    assert point.identity["adapter"] == {"name": "none"} and point.replay == 0
    assert Need.STORE in point.needs and not tiny_scale.method("full_ft").needs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"stage0/covrage": 0.9},
            ["stage0", "unknown key 'covrage'", "Known keys: coverage, k_min"],
        ),
        ({"colour": "red"}, ["top level", "unknown key 'colour'", "Known keys: ", "stage0"]),
        ({"stage0/coverage": DROP}, ["stage0", "no key 'coverage'"]),
        ({"stage1": DROP}, ["top level", "no key 'stage1'"]),
        ({"seeds": 5}, ["seeds", "5", "valid list"]),
        ({"stage1/epochs": "many"}, ["stage1.epochs", "'many'", "valid number"]),
        ({"stage0/coverage": 1.7}, ["stage0.coverage", "1.7", "less than or equal to 1"]),
        ({"stage0/coverage": float("nan")}, ["stage0.coverage", "nan"]),
        ({"data/sizes/test": 301}, ["data.sizes.test", "301", "less than or equal to 300"]),
        ({"stage1/betas": [0.9]}, ["stage1.betas", "at least 2 items"]),
        ({"stage1/betas": [0.9, 1.0]}, ["stage1.betas.1", "1.0", "less than 1"]),
        ({"bases/qwen3-s0/family": "gpt"}, ["bases.qwen3-s0.family", "'gpt'", "'gpt_neox'"]),
        ({"stage0/k_min": 9}, ["stage0", "k_min 9", "above k_max 8", "lower it"]),
        ({"methods": ["full_ft", "magic"]}, ["'magic'", "Known: full_ft, lora"]),
        ({"scale": "Tiny Scale"}, ["scale", "'Tiny Scale'", "pattern"]),
    ],
    ids=named,
)
def test_a_mistake_in_a_scale_is_named(edit, changes, words):
    path = edit(TINY, changes)

    with pytest.raises(UserError) as raised:
        config.load(path)

    message = message_of(raised)
    assert message.startswith(f"{path}: ") and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"methods/lora/adapter/name": "loha"},
            ["methods.lora.adapter", "'loha'", "one of lora, none"],
        ),
        ({OBJECTIVE: {"name": "magic"}}, ["objective", "'magic'", "name should be one of"]),
        ({f"{OBJECTIVE}/kmax": 3}, ["objective", "unknown key 'kmax'", "Known keys: name"]),
        ({f"{OBJECTIVE}/negatives": 8}, ["objective", "Set denominator: union"]),
        (
            {f"{OBJECTIVE}/coverage": 0.999},
            ["objective.coverage", "0.999", "Raise stage0.coverage"],
        ),
        ({f"{OBJECTIVE}/k_min": 2}, ["objective.k_min", "2", "Raise stage0.k_min"]),
        (
            {f"{OBJECTIVE}/k_max": 9, "methods/lr_moclip/knobs": DROP},
            ["objective.k_max", "9", "Raise stage0.k_max"],
        ),
        (
            {"methods/lora/adapter": {"name": "lora"}},
            ["methods.lora.adapter", "no key 'rank'"],
        ),
        ({"methods/ewc/penalty": {"name": "ewc"}}, ["methods.ewc.penalty", "no key 'strength'"]),
        (
            {"methods/full_moclip/optimizer/max_angle": 181},
            ["max_angle", "less than or equal to 180"],
        ),
        ({"methods/replay/replay": -1}, ["methods.replay.replay", "greater than or equal to 0"]),
        ({"methods/replay/label": DROP}, ["methods.replay", "no key 'label'"]),
        ({"methods/base": {"label": "mine"}}, ["methods", "base"]),
        # Knobs of another value of the axis: they would be a TypeError in training, or do nothing.
        (
            {"methods/full_ft/optimizer": {"name": "adamw", "max_angle": 90}},
            ["methods.full_ft.optimizer", "max_angle"],
        ),
        (
            {"methods/full_ft/objective": {"name": "full", "coverage": 0.5}},
            ["methods.full_ft.objective", "coverage"],
        ),
    ],
    ids=named,
)
def test_a_mistake_in_a_method_is_named(edit, changes, words):
    path = edit(METHODS, changes)

    with pytest.raises(UserError) as raised:
        config.load(edit(TINY, {"methods_file": path.name}))

    message = message_of(raised)
    assert message.startswith(f"{path}: ") and all(word in message for word in words), message


def test_a_set_below_the_smallest_is_refused(edit):
    without = {f"{OBJECTIVE}/k_min": DROP, "methods/lr_moclip/knobs": DROP}
    methods = edit(METHODS, {f"{OBJECTIVE}/k_max": 2, **without})

    with pytest.raises(UserError, match="below Stage 0's k_min 3"):
        config.load(edit(TINY, {"methods_file": methods.name, "stage0/k_min": 3}))


def test_sets_whose_smallest_is_above_their_largest_are_refused(edit):
    methods = edit(METHODS, {f"{OBJECTIVE}/k_min": 3, f"{OBJECTIVE}/k_max": 2})

    with pytest.raises(UserError, match="k_min 3 is above k_max 2"):
        config.load(edit(TINY, {"methods_file": methods.name}))


def test_wider_sets_than_stage0s_are_refused_of_a_method_that_is_to_run_alone(edit):
    methods = edit(METHODS, {"methods/lr_adamw/objective/k_min": 2})
    path = edit(TINY, {"methods_file": methods.name})
    assert "lr_adamw" not in config.load(path).methods

    with pytest.raises(UserError, match=r"methods\.lr_adamw\.objective\.k_min: 2 is wider"):
        config.load_chosen(path.parent, {"scales": str(path), "methods": "lr_adamw"})


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_literal_method_reads_its_own_sets_at_every_shipped_scale(path):
    if path.stem not in config.known(SHIPPED):
        pytest.skip("no scale")
    scale = config.load(path)

    for name in ("lr_adamw", "lr_moclip", "lr_union_moclip", "lr_sampled_moclip"):
        objective = scale.to_run(name).objective
        assert (objective.coverage, objective.k_min) == (0.99, 1)
        read = objective.narrowed(scale.stage0.model_dump()) or scale.stage0.model_dump()
        assert (read["coverage"], read["k_min"]) == (0.99, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"scale: [1,\n  broken: {", "not YAML"),
        (b"scale: \xff", "not UTF-8"),
        (b"\tscale: tiny", "not YAML"),
        (b"just words", "not a mapping"),
        (b"", "not a mapping"),
        (b"scale: tiny", "no key 'data'"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text, words):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)

    with pytest.raises(UserError) as raised:
        config.load(path)

    assert message_of(raised).startswith(f"{path}: ") and words in str(raised.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."], ids=["missing", "folder"])
def test_a_config_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(UserError) as raised:
        config.load(tmp_path / name)

    assert message_of(raised).startswith(f"{tmp_path / name}: ")


def test_a_list_of_methods_is_not_a_scale():
    with pytest.raises(UserError) as raised:
        config.load(METHODS)

    assert "unknown key 'methods'" in message_of(raised) or "no key" in message_of(raised)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"scales": "micr"}, ["scales", "'micr'", "Known: ", "micro"]),
        ({"scales": "micro,none.yaml"}, ["scales", "'none.yaml'", "Known: ", "micro"]),
        ({"scales": "methods"}, ["methods"]),
        (
            {"scale": "micro"},
            ["unknown key scale", "Allowed keys: scales, methods, seeds, domains, data_dir"],
        ),
        ({"methods": "full_ft,magic"}, ["'magic'", "Known: full_ft"]),
        ({"methods": ""}, ["methods"]),
        ({"methods": "full_ft,full_ft"}, ["methods", "full_ft"]),
        ({"seeds": "1,x"}, ["seeds", "'1,x'", "Allowed: whole numbers"]),
        ({"seeds": "0"}, ["seeds", "'0'", "Allowed: whole numbers"]),
        ({"seeds": -1}, ["seeds", "-1", "Allowed: whole numbers"]),
        ({"seeds": 1.5}, ["seeds", "1.5", "Allowed: whole numbers"]),
        ({"seeds": ""}, ["seeds"]),
        ({"seeds": "1,1"}, ["seeds", "1,1"]),
    ],
    ids=named,
)
def test_a_mistake_on_the_command_line_is_named(chosen, words):
    with pytest.raises(UserError) as raised:
        config.load_chosen(SHIPPED, chosen)

    message = message_of(raised)
    assert all(word in message for word in words), message


def test_optional_domains_run_only_where_they_are_named():
    def domains(chosen: dict) -> list[str]:
        [scale] = config.load_chosen(SHIPPED, {"scales": "smollm2", **chosen}).values()
        return scale.domains_to_run

    assert domains({}) == ["telecom", "nl2sql"]
    assert domains({"domains": "sqleval,telecom"}) == ["sqleval", "telecom"]


def test_every_shipped_scale_is_known_and_valid():
    names = config.known(SHIPPED)
    assert names == ["families", "micro", "paper", "smollm2"]
    for name in names:
        [scale] = config.load_chosen(SHIPPED, {"scales": name, "data_dir": "anywhere"}).values()
        assert scale.name == name and scale.methods


def test_base_is_not_offered_as_a_method_that_can_be_chosen():
    with pytest.raises(UserError) as raised:
        config.load_chosen(SHIPPED, {"methods": "base"})

    assert "always there" in message_of(raised)


def test_the_command_line_replaces_methods_and_seeds():
    scales = config.load_chosen(
        SHIPPED, {"scales": f"micro,{TINY}", "methods": "ewc, lora", "seeds": 7}
    )

    assert list(scales) == ["micro", "tiny"]
    for scale in scales.values():
        assert scale.methods == ["ewc", "lora"] and scale.seeds == [7]


def test_micro_is_the_default_with_its_own_lists():
    scales = config.load_chosen(SHIPPED, {})

    assert list(scales) == ["micro"]
    assert scales["micro"] == config.load(SHIPPED / "micro.yaml")


@pytest.mark.parametrize("ask", ["base", "domain", "method"])
def test_an_unknown_name_is_met_with_the_known_ones(tiny_scale, ask):
    known = {"base": "qwen3-s0", "domain": "telecom, nl2sql", "method": "full_ft"}

    with pytest.raises(UserError) as raised:
        getattr(tiny_scale, ask)("magic")

    message = message_of(raised)
    assert message.startswith(f"{TINY}: unknown {ask} 'magic'") and known[ask] in message


def test_a_kept_learning_rate_is_read(tiny_scale):
    assert tiny_scale.chosen("qwen3-s0", "telecom", "ewc").lr == 1.0e-3


@pytest.mark.parametrize("rates", ["base,domain,method,lr\nqwen3-s0,telecom,ewc,0.1\n", None])
def test_a_missing_learning_rate_says_how_to_tune_it(edit, tmp_path, rates):
    if rates:
        (tmp_path / "rates.csv").write_text(rates, encoding="utf-8")
    scale = config.load(edit(TINY, {"learning_rates": "rates.csv"}))

    with pytest.raises(UserError, match="tuning") as raised:
        scale.chosen("qwen3-s0", "telecom", "lora")

    message = message_of(raised)
    assert message.startswith(f"{tmp_path / 'rates.csv'}: no learning rate")
    assert all(word in message for word in ("qwen3-s0", "telecom", "lora"))


@pytest.mark.parametrize(
    "text",
    [
        b"base,domain,method\nb,d,m",
        b"base,domain,method,lr\nb,d",
        b"base,domain,method,lr\nb,d,m,fast",
        b"base,domain,method,lr\nb,d,m,\xff",
        b"base,domain,method,lr\nb,d,m,nan",
        b"base,domain,method,lr\nb,d,m,-1",
    ],
    ids=["no rates", "short", "no number", "no UTF-8", "nan", "negative"],
)
def test_a_broken_file_of_learning_rates_is_named(edit, tmp_path, text):
    (tmp_path / "rates.csv").write_bytes(text)
    scale = config.load(edit(TINY, {"learning_rates": "rates.csv"}))

    with pytest.raises(UserError, match=r"broken|not UTF-8") as raised:
        scale.chosen("b", "d", "m")

    assert message_of(raised).startswith(f"{tmp_path / 'rates.csv'}")


def test_paths_in_a_config_are_relative_to_it(tmp_path):
    shutil.copytree(SHIPPED.parents[0], tmp_path / "workflow")

    moved = config.load(tmp_path / "workflow" / "config" / "micro.yaml")

    here = config.load(SHIPPED / "micro.yaml")
    assert moved.model_copy(update={"path": here.path}) == here


def test_a_fingerprint_depends_on_content_and_not_on_the_order_of_keys():
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}

    assert config.fingerprint(value) == config.fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert config.fingerprint(value) != config.fingerprint({**value, "a": 2})
    assert config.fingerprint([1, 2]) != config.fingerprint([2, 1])
