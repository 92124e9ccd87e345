"""A handful of records of each general benchmark in the data folder's format, and the same items as
the hub has them; all made up."""

from pathlib import Path

from lrmoclip.data.published import adapters, benchmarks, general, pins, sources
from tests.data.published.conftest import put, seal

SUBJECTS = ("anatomy", "virology")
UIDS = ("adjunct_island", "wh_island")


def _mmlu(split: str, count: int) -> list[dict]:
    return [
        {"id": f"mmlu-{subject}-{split}-{n:04d}", "subject": subject, "answer": n % 4}
        | {"question": f" Which part is {split} {subject} {n}? "}
        | {"choices": [f"part {n}", "the toe", "the ear", "the chin"]}
        for subject in SUBJECTS
        for n in range(count)
    ]


def _bbh(task: str) -> list[dict]:
    asked = {
        "boolean_expressions": ("not not {} is", "True"),
        "date_understanding": ("Day {}?\nOptions:\n(A) Monday\n(B) Tuesday\n(C) Friday", "(B)"),
        "navigate": ("Take {} steps. Back?\nOptions:\n- Yes\n- No", "No"),
        "object_counting": ("I have {} hats. How many hats?", "7"),
    }
    text, target = asked.get(task, ("What of {} in " + task + "?", "this"))
    return [
        {"id": f"bbh-{task}-{n:03d}", "input": text.format(n), "target": target} for n in range(4)
    ]


def math(split: str, count: int) -> list[dict]:
    return [
        {"id": f"math-{split}-{slug}-{n:05d}", "type": subject, "level": f"Level {n % 5 + 1}"}
        | {"problem": f"What is ${n} + 1$ for {split} {slug}?", "answer": str(n + 1)}
        | {"solution": f"It is $\\boxed{{{n + 1}}}$."}
        for subject, (slug, _) in adapters.MATH.items()
        for n in range(count)
    ]


def arc(split: str, count: int) -> list[dict]:
    return [
        {"id": f"arc_easy-Made_{split}_{n}", "question": f"What warms the {split} pond {n}?"}
        | {"choices": ["the sun", "a stone", "the moon"], "answer": n % 3}
        for n in range(count)
    ]


def _wikitext(split: str, count: int) -> list[dict]:
    plain = (
        "The old mill , built in 1 @,@ 850 , stood by the river for years and years and years . "
    )
    rare = "Its owner , <unk> , sold it . "
    last = "It burnt down one winter night . "
    text = f"{plain}{plain}{rare}{last}\n \n = = Later = = \n \n Short . \n"
    return [
        {"id": f"wikitext2-{split[:5]}-{n:03d}", "text": f" = Mill {n} = \n \n {text}"}
        for n in range(count)
    ]


def hellaswag() -> list[dict]:
    return [
        {"id": f"hellaswag-{100 + n}", "answer": n % 4}
        | {"context": f"Baking: How to bake bread {n}. Weigh the flour. Then"}
        | {"choices": [" Add water.", "add salt: a lot.", "wait", f"eat {n}"]}
        for n in range(6)
    ]


def _piqa() -> list[dict]:
    return [
        {"id": f"piqa-val-{n:04d}", "goal": f"dry {n} socks", "answer": n % 2}
        | {"choices": ["hang them up ", "fold them wet"]}
        for n in range(6)
    ]


def _lambada() -> list[dict]:
    return [
        {"id": f"lambada-test-{n:04d}", "target": "boat"}
        | {"context": f"She saw {n} boats.\n\nShe took  the red"}
        for n in range(6)
    ]


def _blimp() -> list[dict]:
    return [
        {"id": f"blimp-{uid}-{n:03d}", "good": f"{n} cats sleep.", "bad": f"{n} cats sleeps."}
        | {"uid": uid, "term": "made_up", "field": "syntax"}
        for uid in UIDS
        for n in range(4)
    ]


RECORDS = {
    "mmlu/dev": _mmlu("dev", 5),
    "mmlu/validation": _mmlu("validation", 8),
    "mmlu/test": _mmlu("test", 6),
    **{f"bbh/{task}": _bbh(task) for task in benchmarks._variants("bbh/zeroshot")},
    "math/train": math("train", 12),
    "math/test": math("test", 10),
    "easy/arc_easy/train": arc("train", 30),
    "easy/arc_easy/validation": arc("validation", 6),
    "easy/arc_easy/test": arc("test", 9),
    "easy/hellaswag/validation_subset": hellaswag(),
    "easy/piqa/validation": _piqa(),
    "easy/lambada/test": _lambada(),
    "easy/blimp/subset": _blimp(),
    "easy/wikitext2/validation": _wikitext("validation", 8),
    "easy/wikitext2/test": _wikitext("test", 3),
}
ROLES = [role for role in benchmarks.BENCHMARKS if role != "gpqa"]  # which the folder lacks


def folder(root: Path, changed: dict[str, list[dict] | None] | None = None) -> sources.Folder:
    """A data folder with the records above; `changed` replaces files, None takes them out."""
    for name, records in (RECORDS | (changed or {})).items():
        if records is not None:
            put(root, f"{name}.jsonl", records)
    seal(root)
    return sources.Folder(root)


def hub(monkeypatch) -> sources.Hub:
    """The hub, with the same items in the schemas of its repositories."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", _hub_rows)
    return sources.Hub({name: pin | {"revision": "0" * 40} for name, pin in pins.GENERAL.items()})


def collected(source, role: str, split: str = "test", seed: int = 1, **settings) -> list[dict]:
    """The documents of one split of one benchmark."""
    sets, missing, _ = general.collect(source, {role: settings}, seed)
    assert not missing
    return sets[role][split]


def raw_hellaswag(record: dict) -> dict:
    """As the hub has it: of what lm-eval's own preprocessing makes the folder's text."""
    number = record["id"].removeprefix("hellaswag-")
    n = int(number) - 100
    return {
        "ind": int(number),
        "activity_label": "Baking",
        "ctx_a": f"How to bake bread {n} [title] Weigh the flour.",
        "ctx_b": "then",
        "endings": ["[step] Add water.", "add salt: a lot.", " wait", f"eat {n}"],
        "label": str(record["answer"]),
    }


def _raw_arc(record: dict) -> dict:
    labels = ["1", "2", "3"] if record["answer"] else ["A", "B", "C"]
    return {
        "id": record["id"].removeprefix("arc_easy-"),
        "question": record["question"],
        "choices": {"text": record["choices"], "label": labels},
        "answerKey": labels[record["answer"]],
    }


def _gpqa_rows() -> list[dict]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return [
        {"Record ID": f"rec{n}", "Question": f"Why {n}?", "Correct Answer": "right", **wrong}
        | {"Explanation": "none"}
        for n in range(6)
    ]


def _hub_rows(repo: str, name: str | None, *, split: str, revision: str) -> list[dict]:
    """Rows in the schemas of the hub's repositories."""
    if repo == "cais/mmlu":
        columns = ("question", "subject", "choices", "answer")
        return [{c: r[c] for c in columns} for r in RECORDS[f"mmlu/{split}"]]
    if repo == "SaylorTwift/bbh":
        return [{c: r[c] for c in ("input", "target")} for r in RECORDS[f"bbh/{name}"]]
    if repo == "Idavidrein/gpqa":
        return _gpqa_rows()
    if repo == "EleutherAI/hendrycks_math":
        mine = [r for r in RECORDS[f"math/{split}"] if f"-{name}-" in r["id"]]
        return [{c: r[c] for c in ("problem", "level", "type", "solution")} for r in mine]
    if repo == "allenai/ai2_arc":
        return [_raw_arc(r) for r in RECORDS[f"easy/arc_easy/{split}"]]
    if repo == "Rowan/hellaswag":
        return [raw_hellaswag(r) for r in RECORDS["easy/hellaswag/validation_subset"]]
    if repo == "baber/piqa":
        return [
            {"goal": r["goal"], "sol1": r["choices"][0], "sol2": r["choices"][1]}
            | {"label": r["answer"]}
            for r in RECORDS["easy/piqa/validation"]
        ]
    if repo == "EleutherAI/lambada_openai":
        return [{"text": f"{r['context']} {r['target']}"} for r in RECORDS["easy/lambada/test"]]
    if repo == "nyu-mll/blimp":
        return [
            {"sentence_good": r["good"], "sentence_bad": r["bad"], "UID": r["uid"]}
            | {"pair_id": int(r["id"].rpartition("-")[2]), "field": r["field"]}
            for r in RECORDS["easy/blimp/subset"]
            if r["uid"] == name
        ]
    assert repo == "EleutherAI/wikitext_document_level"
    key = "validation" if split == "train" else split
    return [{"page": r["text"]} for r in RECORDS[f"easy/wikitext2/{key}"]]
