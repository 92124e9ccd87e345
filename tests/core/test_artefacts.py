"""Artefacts appear whole or not at all, replace nothing but their own kind, and are made by one
process at a time; whoever reads one sees what was changed."""

import errno
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lrmoclip.core import artefacts, files
from lrmoclip.core.artefacts import MANIFEST, Folder
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import Hold, partial_of


def make(target: Path, text: str = "made", kind: str = "thing") -> None:
    with artefacts.folder(target, kind) as draft:
        files.write_text(draft.path / "deep" / "file", text)


def make_loose(target: Path, text: str = "made", kind: str = "thing") -> None:
    with artefacts.file(target, kind) as draft:
        files.write_text(draft.path / target.name, text)


def content(folder: Path) -> dict[str, str]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".json")
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in found}


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("before", [False, True], ids=["new", "over an older one"])
def test_a_folder_takes_its_name_whole(tmp_path, before):
    if before:
        make(tmp_path / "out", "old")
        files.write_text(tmp_path / "out" / ".snakemake_timestamp", "")

    with artefacts.folder(tmp_path / "out", "thing") as draft:
        files.write_text(draft.path / "new", "new")
        assert content(tmp_path / "out").get("deep/file") == ("old" if before else None)
        draft.about["seed"] = 3

    assert content(tmp_path) == {"out/new": "new"}
    assert Folder(tmp_path / "out", "thing", "again").about == {
        "seed": 3,
        "files": {"new": files.sha256(tmp_path / "out" / "new")},
    }


@pytest.mark.parametrize("raised", [KeyError("bug"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("making", [make, make_loose], ids=["folder", "file"])
def test_an_exception_leaves_the_old_one_and_nothing_else(tmp_path, raised, making):
    target = tmp_path / "out.txt"
    making(target, "old")
    before = sorted(tmp_path.rglob("*"))
    context = artefacts.folder if making is make else artefacts.file

    with pytest.raises(type(raised)), context(target, "thing") as draft:
        files.write_text(draft.path / target.name, "half")
        raise raised

    assert sorted(tmp_path.rglob("*")) == before
    assert list(content(tmp_path).values()) == ["old"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        sqlite3.OperationalError("database or disk is full"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # tokenizers' own
    ],
    ids=["full", "quota", "read-only", "SQLite", "safetensors", "tokenizers"],
)
@pytest.mark.parametrize("context", [artefacts.folder, artefacts.file])
def test_a_full_disk_is_a_users_error(tmp_path, error, context):
    with (
        pytest.raises(UserError, match="cannot be written") as raised,
        context(tmp_path / "out.txt", "thing"),
    ):
        raise error

    assert str(tmp_path / "out") in one_line(raised)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_while_writing_is_not_a_full_disk(tmp_path):
    unreadable = PermissionError(errno.EACCES, "Permission denied", "/mnt/disk1/input")

    with pytest.raises(PermissionError), artefacts.folder(tmp_path / "out", "thing"):
        raise unreadable


@pytest.mark.parametrize("below", ["taken", "taken/out", "taken/deep/er"])
def test_a_place_that_cannot_be_made_is_refused_before_the_work(tmp_path, below):
    (tmp_path / "taken").write_text("kept", encoding="utf-8")

    with pytest.raises(UserError) as raised, artefacts.folder(tmp_path / below, "thing"):
        pytest.fail("the work began")

    assert str(tmp_path / "taken") in one_line(raised)
    assert content(tmp_path) == {"taken": "kept"}


# What may stand where a folder is to be made: each is somebody's.
STRANGERS = {
    "a file of a user's": lambda out: files.write_text(out / "thesis.tex", "years"),
    "a hidden one": lambda out: files.write_text(out / ".git-credentials", "years"),
    "a deep one": lambda out: files.write_text(out / "a" / "b" / "c", "years"),
    "a link": lambda out: (out.mkdir(), (out / "link").symlink_to("/etc/hosts")),
    "another kind": lambda out: make(out, "years", kind="other"),
    "ours and one of a user's": lambda out: (make(out), files.write_text(out / "notes", "years")),
    "a manifest that was changed": lambda out: (
        make(out), files.write_text(out / MANIFEST, (out / MANIFEST).read_text() + " "),
    ),
    "a manifest of a user's": lambda out: files.write_text(out / MANIFEST, '{"kind": "thing"}'),
}  # fmt: skip


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_what_is_not_ours_is_never_replaced(tmp_path, stranger):
    stranger(tmp_path / "out")
    before = {p: p.lstat().st_ino for p in tmp_path.rglob("*")}

    with (
        pytest.raises(UserError, match="replaces nothing but a thing that it made") as raised,
        artefacts.folder(tmp_path / "out", "thing"),
    ):
        pytest.fail("the work began")

    assert one_line(raised).startswith(str(tmp_path / "out"))
    assert {p: p.lstat().st_ino for p in tmp_path.rglob("*")} == before


def test_a_folder_with_what_another_rule_added_is_ours(tmp_path):
    make(tmp_path / "out")
    with artefacts.loose(tmp_path / "out" / "metrics.json", "score", "samples.csv") as draft:
        files.write_text(draft.path / "samples.csv", "a,b")

    make(tmp_path / "out", "again")

    assert content(tmp_path) == {"out/deep/file": "again"}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (".", "the working directory"),
        ("..", "the working directory"),
        ("/", "the working directory"),
        ("sub/..", "the working directory"),
        ("~", "a home"),
        ("repository", "the root of a repository"),
        ("link", "a link to"),
    ],
)
def test_places_that_others_live_in_are_refused(tmp_path, monkeypatch, target, why):
    here = tmp_path / "here"
    for name in ("sub", "repository/.git", "home", "behind"):
        (here / name).mkdir(parents=True)
    (here / "link").symlink_to("behind")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here / "home"))
    before = sorted(tmp_path.rglob("*"))

    with (
        pytest.raises(UserError, match=why) as raised,
        artefacts.folder(Path(target).expanduser(), "thing"),
    ):
        pytest.fail("the work began")

    one_line(raised)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["out.txt", "out.json"])
def test_a_file_of_a_users_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("years")

    with pytest.raises(UserError, match=rf"{name}: there already, and not a thing"):
        make_loose(tmp_path / "out.txt")

    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "years"


def test_a_file_of_ours_is_replaced_and_described_anew(tmp_path):
    make_loose(tmp_path / "out.txt", "old")
    make_loose(tmp_path / "out.txt", "new")

    assert content(tmp_path) == {"out.txt": "new"}
    artefacts.beside(tmp_path / "out.txt", "thing", "again")


@pytest.mark.parametrize("moves", [1, 2, 3, 4])
def test_a_death_between_the_names_of_files_leaves_what_can_be_made_again(tmp_path, moves):
    """kill -9 as the nth file is about to get its name; 4: it ends before."""
    names = ("a.csv", "b.csv")

    def make_both(dies_at: int = 0) -> None:
        with artefacts.loose(tmp_path / "both.json", "thing", *names) as draft:
            for name in names:
                files.write_text(draft.path / name, name)
            if dies_at:
                _die_at_move(dies_at)

    _in_a_child(make_both, moves)
    if moves <= len(names) + 1:
        with pytest.raises(UserError):
            _read_both(tmp_path, names)
    make_both()
    _read_both(tmp_path, names)


def _read_both(folder: Path, names: tuple[str, ...]) -> None:
    listed = files.read_sealed(folder / "both.json", "thing")["files"]
    for name in names:
        artefacts.check_digest(folder / name, listed[name], "again")


def _die_at_move(nth: int) -> None:
    """Exit at once instead of the nth renaming of a path."""
    replace, moves = Path.replace, iter(range(1, 100))

    def counted(path: Path, target: Path) -> Path:
        if next(moves) == nth:
            os._exit(0)
        return replace(path, target)

    Path.replace = counted


def _in_a_child(function, *arguments) -> None:
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    child.join()


def test_in_a_folder_of_ours_what_is_left_of_a_pair_is_ours(tmp_path):
    make(tmp_path / "run", kind="run")
    pair = tmp_path / "run" / "metrics.json"
    for _ in range(2):
        with artefacts.loose(pair, "score", "samples.csv", within="run") as draft:
            files.write_text(draft.path / "samples.csv", "1")
        pair.unlink(missing_ok=True)

    with (
        pytest.raises(UserError, match=r"samples\.csv: there already, and not a score"),
        artefacts.loose(pair, "score", "samples.csv", within="checkpoint"),
    ):
        pass


def test_a_folder_over_a_file_and_a_file_over_a_folder_are_refused(tmp_path):
    make(tmp_path / "folder.txt")
    make_loose(tmp_path / "file.txt")

    with pytest.raises(UserError, match="a folder, not a file"):
        make_loose(tmp_path / "folder.txt")
    with pytest.raises(UserError, match="a file, not a folder"):
        make(tmp_path / "file.txt")


def hold(target: Path, held) -> None:
    hold = Hold(target, lambda _: None, resumable=True)
    files.write_text(hold.new / "half", "half")
    held.set()
    signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that works on `out`, and does not end by itself."""
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    process = spawn.Process(target=hold, args=(tmp_path / "out", held))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_second_writer_is_refused_naming_the_first(tmp_path, holder):
    with pytest.raises(UserError, match=f"process {holder.pid} on .* is writing it") as raised:
        make(tmp_path / "out")

    assert str(tmp_path / "out") in one_line(raised)


def test_a_writer_that_was_killed_holds_nothing_and_leaves_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert partial_of(tmp_path / "out").exists()

    make(tmp_path / "out")

    assert content(tmp_path) == {"out/deep/file": "made"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_old_one_comes_back_where_a_process_died_between_two_names(tmp_path):
    make(tmp_path / "out", "old")
    partial = partial_of(tmp_path / "out")
    partial.mkdir()
    (tmp_path / "out").rename(partial / "old")  # and here it died

    with pytest.raises(KeyError), artefacts.folder(tmp_path / "out", "thing"):
        assert content(tmp_path / "out") == {"deep/file": "old"}
        raise KeyError

    assert content(tmp_path) == {"out/deep/file": "old"}


def test_a_folder_that_another_one_made_meanwhile_is_looked_at_again(tmp_path, monkeypatch):
    """Between the first look and the lock, a user's file appears."""
    from lrmoclip.core import holding

    acquired = holding.Hold._acquired

    def slowly(hold):
        files.write_text(tmp_path / "out" / "thesis.tex", "years")
        return acquired(hold)

    monkeypatch.setattr(holding.Hold, "_acquired", slowly)
    with pytest.raises(UserError, match=r"thesis\.tex"):
        make(tmp_path / "out")

    assert content(tmp_path) == {"out/thesis.tex": "years"}
    assert not partial_of(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda out: (out / "deep" / "file").write_text("mad3"), "deep/file: damaged"),
        (lambda out: (out / "deep" / "file").unlink(), "deep/file: missing"),
        (lambda out: files.write_text(out / "more", ""), "more: .* does not list it"),
        (lambda out: (out / MANIFEST).unlink(), f"no {MANIFEST}"),
        (lambda out: (out / MANIFEST).write_bytes(b""), "not JSON"),
    ],
    ids=["changed", "lost", "added", "without a manifest", "an empty manifest"],
)
def test_a_reader_sees_what_was_changed(tmp_path, damage, words):
    make(tmp_path / "out")
    damage(tmp_path / "out")

    with pytest.raises(UserError, match=words) as raised:
        Folder(tmp_path / "out", "thing", "lrmoclip thing").whole()

    assert "out" in one_line(raised)


def test_one_file_of_a_folder_is_read_without_the_others(tmp_path):
    with artefacts.folder(tmp_path / "out", "thing") as draft:
        for name in ("one", "two"):
            files.write_text(draft.path / name, name)
    (tmp_path / "out" / "two").write_text("2")
    folder = Folder(tmp_path / "out", "thing", "lrmoclip thing")

    assert folder.file("one").read_text() == "one" and "two" in folder
    with pytest.raises(UserError, match="two: damaged"):
        folder.file("two")


def test_a_table_is_checked_where_something_says_what_it_was(tmp_path):
    make_loose(tmp_path / "table.csv", "a,b")
    files.write_text(tmp_path / "own.csv", "a,b")

    assert artefacts.unchanged(tmp_path / "own.csv") == tmp_path / "own.csv"
    assert artefacts.unchanged(tmp_path / "table.csv") == tmp_path / "table.csv"
    files.write_text(tmp_path / "table.csv", "a,c")
    with pytest.raises(UserError, match=r"table\.csv: damaged"):
        artefacts.unchanged(tmp_path / "table.csv")


def test_a_folder_in_a_folder_stands_by_its_manifest(tmp_path):
    with artefacts.folder(tmp_path / "out", "run") as draft:
        files.write_text(draft.path / "model" / "weights", "w")
        artefacts.seal(draft.path / "model", "checkpoint", {})

    assert list(Folder(tmp_path / "out", "run", "").about["files"]) == ["model/manifest.json"]
    make(tmp_path / "other")
    with artefacts.folder(tmp_path / "out", "run"):
        pass  # all of it is ours
