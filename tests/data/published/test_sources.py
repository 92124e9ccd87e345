"""A folder and the hub give the same records, and what is wrong with either is named."""

import errno
import json

import datasets
import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data.published import sources, telecom
from lrmoclip.data.published.sources import Both, Folder, Hub, Missing, open_source
from tests.data.published.conftest import build, put, seal, teleqna

ITEM = {"id": str, "question": str, "choices": list, "answer": int}
PIN = {"repo": "netop/TeleQnA", "revision": "abc", "split": "test"}


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hub_row(record: dict) -> dict:
    """As netop/TeleQnA has it."""
    columns = {name: record[name] for name in ("question", "choices", "answer")}
    return {**columns, "subject": record["category"], "explaination": ""}


@pytest.fixture
def repository(tmp_path):
    """A repository of the hub as a local folder, of the rows of sixty questions."""
    path = tmp_path / "repository"
    put(path, "TeleQnA.json", [hub_row(teleqna(number)) for number in range(60)])
    head = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n"
    (path / "README.md").write_text(f"{head}    path: TeleQnA.json\n---\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_folder_gives_the_records_of_a_file(folder):
    records = Folder(folder).records("telecom", "test", ITEM)

    assert [record["id"] for record in records][:2] == ["teleqna-00000", "teleqna-00005"]


def test_a_separator_inside_a_text_does_not_end_a_record(folder):
    text = json.dumps({"id": "a\u2028b"}, ensure_ascii=False) + "\n"
    (folder / "odd").mkdir()
    (folder / "odd/test.jsonl").write_text(text, encoding="utf-8")
    seal(folder)

    assert Folder(folder).records("odd", "test", {"id": str}) == [{"id": "a\u2028b"}]


def test_a_set_that_the_folder_does_not_list_is_missing_not_a_mistake(folder):
    with pytest.raises(Missing, match="no gpqa/test"):
        Folder(folder).records("gpqa", "test", {"id": str})


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert "no such folder" in refusal(Folder, tmp_path / "nowhere")
    assert "SHA256SUMS" in refusal(Folder, tmp_path)


def test_a_changed_file_is_refused_by_name(folder):
    with (folder / "telecom/test.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")

    refused = refusal(Folder(folder).records, "telecom", "test", ITEM)

    assert "telecom/test.jsonl: its hash" in refused


def test_a_listed_file_that_is_gone_is_refused_by_name(folder):
    (folder / "telecom/test.jsonl").unlink()

    refused = refusal(Folder(folder).records, "telecom", "test", ITEM)

    assert "telecom/test.jsonl: no such file" in refused


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"id": "a", "question": "q", "choices": []}', "line 2: no field answer"),
        ('{"id": "a", "question": "q", "choices": [], "answer": "1"}', "line 2: answer is not"),
        ('{"id": "a", "question": "q", "choices": [], "answer": true}', "line 2: answer is not"),
        ('{"id": "a"', "line 2: not JSON"),
        ('["a"]', "line 2: not a JSON object"),
        ("", "line 2: not JSON"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(folder, line, named):
    good = json.dumps(teleqna(1))
    path = folder / "telecom/test.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    seal(folder)

    assert f"{path}, {named}" in refusal(Folder(folder).records, "telecom", "test", ITEM)


def test_an_empty_file_is_refused(folder):
    (folder / "telecom/test.jsonl").write_text("", encoding="utf-8")
    seal(folder)

    assert "no records" in refusal(Folder(folder).records, "telecom", "test", ITEM)


def test_the_hub_and_a_folder_give_the_same_domain(tmp_path, repository):
    rows = [teleqna(number) for number in range(60)]
    test = telecom.split_ids(rows)
    folder = build(tmp_path / "folder")
    put(folder, "telecom/train.jsonl", [row for row in rows if row["id"] not in test])
    put(folder, "telecom/test.jsonl", [row for row in rows if row["id"] in test])
    seal(folder)
    hub = Hub({"telecom": PIN}, snapshot=lambda repo: repository)

    from_folder = telecom.collect(Folder(folder), {"validation": 5}, 1)

    assert telecom.collect(hub, {"validation": 5}, 1) == from_folder
    assert len(test) == 12


def test_the_hub_is_asked_for_the_pinned_revision_and_runs_no_code(monkeypatch):
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names, **how: asked.append((names, how)) or []
    )
    pin = {"repo": "a/b", "revision": "abc", "name": "part-{split}", "split": "train"}

    Hub({"bbh": pin}).records("bbh", "snarks", {}, lambda row, number: row)

    assert asked == [(("a/b", "part-snarks"), {"split": "train", "revision": "abc"})]


def test_a_row_that_the_adapter_leaves_out_is_left_out(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"id": "a"}, {"id": "b"}])
    hub = Hub({"telecom": PIN})

    found = hub.records("telecom", "all", {}, lambda row, number: row if number else None)

    assert found == [{"id": "b"}]


def test_a_row_without_a_field_is_named(monkeypatch):
    rows = [hub_row(teleqna(1)), {"question": "q"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    read = Hub({"telecom": PIN}).records

    assert "netop/TeleQnA test at abc, row 1: not the" in refusal(
        read, "telecom", "all", ITEM, telecom.from_hub
    )
    wrong = telecom.FIELDS | {"category": int}
    assert "row 0: category is not" in refusal(read, "telecom", "all", wrong, telecom.from_hub)


def full(*_, **__):
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise datasets.exceptions.DatasetGenerationError("while generating") from error


def raising(error: Exception):
    def load(*_, **__):
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "named"),
    [
        (full, "no room"),
        (raising(OSError("Not enough disk space. Needed: 1 GB")), "no room"),
        (raising(ConnectionError("Couldn't reach it")), "out of reach"),
        (
            raising(datasets.exceptions.DatasetNotFoundError("It is a gated dataset on the Hub.")),
            "https://huggingface.co/datasets/netop/TeleQnA",
        ),
        (raising(datasets.exceptions.DatasetNotFoundError("Revision\n'abc' is not")), "abc"),
        (raising(ValueError("Unknown split")), "Unknown split"),
    ],
)
def test_what_the_hub_refuses_ends_in_one_line_with_the_way_out(monkeypatch, load, named):
    monkeypatch.setattr(datasets, "load_dataset", load)

    refused = refusal(
        Hub({"telecom": PIN}).records, "telecom", "all", telecom.FIELDS, telecom.from_hub
    )

    assert named in refused
    assert refused.startswith("netop/TeleQnA")


def test_an_unpinned_set_is_missing_on_the_hub():
    with pytest.raises(Missing, match="nl2sql/geography; it needs a data folder"):
        Hub({}).records("nl2sql/geography", "train", {})
    with pytest.raises(Missing, match="data folder"):
        Hub({}).path("nl2sql/databases/rivers.sqlite")


def test_the_hub_serves_what_is_pinned_and_the_folder_the_rest(folder):
    pinned = {"telecom": {"hub": "netop/TeleQnA", "revision": "abc"}}
    pinned["math"] = {"hub": "EleutherAI/hendrycks_math", "revision": "def"}

    source = open_source({"repositories": pinned}, folder)

    assert isinstance(source, Both)
    kinds = {name: source.holder(name).kind for name in ("telecom", "math", "mmlu", "nl2sql")}
    assert kinds == {"telecom": "hub", "math": "hub", "mmlu": "folder", "nl2sql": "folder"}
    assert source.hub.pins["telecom"] == PIN
    assert source.hub.pins["math/algebra"]["revision"] == "def"


def test_published_data_need_a_source(folder):
    pinned = {"mmlu": {"hub": "cais/mmlu", "revision": "abc"}}

    assert "data_dir" in refusal(open_source, {}, None)
    assert isinstance(open_source({}, folder), Folder)
    assert isinstance(open_source({"repositories": pinned}, None), sources.Hub)


def test_a_repository_that_no_adapter_reads_is_refused():
    pinned = {"mmlu": {"hub": "someone/mmlu", "revision": "abc"}}

    assert "data.repositories.mmlu: someone/mmlu" in refusal(
        open_source, {"repositories": pinned}, None
    )
