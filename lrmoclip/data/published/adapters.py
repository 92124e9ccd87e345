"""The general benchmarks, small functions each: a record of the data folder becomes the document
that lm-eval 0.4.13's own task reads (its columns and types, with our `id` and `task`), and a row of
the hub becomes a record of the data folder, so that both sources give the same documents.

`<set>(record, family)` makes a document; `<set>_row(name, split)` gives the function that turns
rows of that split into records.
"""

import re
from collections import Counter

from lrmoclip.data.published.sources import FromHub

# Subject of MATH, as its records spell it: (name in ids and on the hub, ending of lm-eval's task).
MATH = {
    "Algebra": ("algebra", "algebra"),
    "Counting & Probability": ("counting_and_probability", "counting_and_prob"),
    "Geometry": ("geometry", "geometry"),
    "Intermediate Algebra": ("intermediate_algebra", "intermediate_algebra"),
    "Number Theory": ("number_theory", "num_theory"),
    "Prealgebra": ("prealgebra", "prealgebra"),
    "Precalculus": ("precalculus", "precalc"),
}
# Tasks of BBH whose input lists no options although there are two.
_TWO_ANSWERS = ("boolean_expressions", "sports_understanding", "web_of_lies")


# MMLU


def mmlu(record: dict, family: str) -> dict:
    columns = {name: record[name] for name in ("question", "subject", "choices", "answer")}
    return {"id": record["id"], "task": f"mmlu_{record['subject']}", **columns}


def mmlu_row(name: str, split: str) -> FromHub:
    seen: Counter = Counter()  # the hub numbers rows over all subjects, the folder within one

    def record(row: dict, number: int) -> dict:
        subject = row["subject"]
        seen[subject] += 1
        columns = {name: row[name] for name in ("subject", "question", "choices", "answer")}
        return {"id": f"mmlu-{subject}-{split}-{seen[subject] - 1:04d}", **columns}

    return record


# BIG-Bench Hard


def bbh(record: dict, family: str) -> dict:
    """`bbh_zeroshot` is the default: a short prompt, and lm-eval's filter `flexible-extract` reads
    the answer wherever a model puts it. `bbh_cot_fewshot` has the authors' three examples with
    their reasoning, for models that profit from it. `bbh_fewshot` has their answers alone and no
    filter: lm-eval gives 0 to an answer that a byte-level tokenizer opens with a blank. Examples
    stand in lm-eval's YAML, so no split is needed for them."""
    task = record["id"].split("-")[1]  # bbh-<task>-<number>
    columns = {"input": record["input"], "target": record["target"]}
    return {"id": record["id"], "task": f"{family}_{task}", **columns}


def bbh_row(name: str, split: str) -> FromHub:
    return lambda row, number: {
        "id": f"bbh-{split}-{number:03d}",
        "input": row["input"],
        "target": row["target"],
    }


def bbh_options(document: dict) -> int:
    _, listed, options = document["input"].partition("Options:")
    if not listed:
        return 2 if document["task"].endswith(_TWO_ANSWERS) else 0
    return max(2, len(set(re.findall(r"\([A-Z]\) |^- .*$", options, re.MULTILINE))))


# GPQA


GPQA = ("Question", "Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))


def gpqa(record: dict, family: str) -> dict:
    """lm-eval shuffles the options by the global generator: seed it before loading the task."""
    return {"id": record["id"], "task": family, **{name: record[name] for name in GPQA}}


def gpqa_row(name: str, split: str) -> FromHub:
    return lambda row, number: {
        "id": f"{split}-{row['Record ID']}",
        **{column: row[column] for column in GPQA},
    }


# MATH


def math(record: dict, family: str) -> dict:
    """`hendrycks_math` asks for the answer at once, `minerva_math` shows four solutions first and
    needs lm-eval's extra `math`."""
    columns = {name: record[name] for name in ("problem", "level", "type", "solution")}
    return {"id": record["id"], "task": f"{family}_{MATH[record['type']][1]}", **columns}


def math_row(name: str, split: str) -> FromHub:
    """Ids count rows: the hub does not keep the file numbers that the folder's ids have."""
    subject = name.removeprefix("math/")
    return lambda row, number: {
        "id": f"math-{split}-{subject}-row{number:04d}",
        **{column: row[column] for column in ("problem", "solution", "level", "type")},
    }


def math_unusable(record: dict) -> str:
    """Nothing can be compared with an empty answer; two training problems have one."""
    boxed = re.search(r"\\(boxed|fbox)(?!\{\s*\})", record["solution"])
    return "" if boxed else "the solution boxes nothing"


# ARC-Easy


def arc(record: dict, family: str) -> dict:
    """Options are labelled A, B, ... in both sources; some rows of the hub say 1, 2, ..., which
    lm-eval's prompt does not show."""
    labels = [chr(ord("A") + i) for i in range(len(record["choices"]))]
    return {
        "id": record["id"],
        "task": "arc_easy",
        "question": record["question"],
        "choices": {"text": record["choices"], "label": labels},
        "answerKey": labels[record["answer"]],
    }


def arc_row(name: str, split: str) -> FromHub:
    return lambda row, number: {
        "id": f"arc_easy-{row['id']}",
        "question": row["question"],
        "choices": row["choices"]["text"],
        "answer": row["choices"]["label"].index(row["answerKey"]),
    }


# HellaSwag


def hellaswag(record: dict, family: str) -> dict:
    """The folder keeps lm-eval's query and choices, not what they were made of, and a row of the
    hub is brought to the same form. These columns are not the hub's texts, then, but lm-eval's
    `process_docs` makes the same query and choices of them."""
    activity, _, context = record["context"].partition(": ")
    return {
        "id": record["id"],
        "task": "hellaswag",
        "activity_label": _unprocessed(activity),
        "ctx_a": _unprocessed(context),
        "ctx_b": "",
        "endings": [_unprocessed(choice) for choice in record["choices"]],
        "label": str(record["answer"]),
    }


def _unprocessed(text: str) -> str:
    """A text of which lm-eval's `preprocess` makes `text`: it strips, then drops bracketed parts,
    then halves double spaces. A dropped "[]" shields a blank at an end from stripping."""
    shield = text != text.strip()
    return ("[]" if shield else "") + text.replace("  ", "    ") + ("[]" if shield else "")


def hellaswag_row(name: str, split: str) -> FromHub:
    def record(row: dict, number: int) -> dict:
        from lm_eval.tasks.hellaswag.utils import preprocess

        context = row["ctx_a"] + " " + row["ctx_b"].capitalize()
        return {
            "id": f"hellaswag-{row['ind']}",
            "context": preprocess(row["activity_label"] + ": " + context),
            "choices": [preprocess(ending) for ending in row["endings"]],
            "answer": int(row["label"]),
        }

    return record


# PIQA, LAMBADA, BLiMP, WikiText-2


def piqa(record: dict, family: str) -> dict:
    first, second = record["choices"]
    columns = {"goal": record["goal"], "sol1": first, "sol2": second, "label": record["answer"]}
    return {"id": record["id"], "task": "piqa", **columns}


def piqa_row(name: str, split: str) -> FromHub:
    return lambda row, number: {
        "id": f"piqa-val-{number:04d}",
        "goal": row["goal"],
        "choices": [row["sol1"], row["sol2"]],
        "answer": row["label"],
    }


def lambada(record: dict, family: str) -> dict:
    text = f"{record['context']} {record['target']}"
    return {"id": record["id"], "task": "lambada_openai", "text": text}


def lambada_row(name: str, split: str) -> FromHub:
    def record(row: dict, number: int) -> dict:
        context, _, target = row["text"].rpartition(" ")
        return {"id": f"lambada-test-{number:04d}", "context": context, "target": target}

    return record


def blimp(record: dict, family: str) -> dict:
    columns = {"sentence_good": record["good"], "sentence_bad": record["bad"]}
    return {"id": record["id"], "task": f"blimp_{record['uid']}", **columns}


def blimp_row(name: str, split: str) -> FromHub:
    return lambda row, number: {
        "id": f"blimp-{row['UID']}-{int(row['pair_id']):03d}",
        "good": row["sentence_good"],
        "bad": row["sentence_bad"],
        "uid": row["UID"],
    }


def wikitext(record: dict, family: str) -> dict:
    """The folder's text is tokenised and has `<unk>` for rare words, the hub's is raw: perplexities
    on the two do not compare."""
    return {"id": record["id"], "task": "wikitext", "page": record["text"]}


def wikitext_row(name: str, split: str) -> FromHub:
    part = {"validation": "valid"}.get(split, split)
    return lambda row, number: {"id": f"wikitext2-{part}-{number:03d}", "text": row["page"]}
