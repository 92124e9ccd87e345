"""The course of a workflow by its events, and what is drawn of it."""

import io
import json

import pytest
from rich.console import Console
from tqdm import tqdm

from lrmoclip.cli import screen
from lrmoclip.cli.course import Course, Job, in_words

TRAIN = {"base": "qwen3-s0", "domain": "telecom", "method": "full_ft", "seeds": "1_2"}


@pytest.fixture
def course(tmp_path) -> Course:
    return Course(tmp_path / "events.jsonl")


def happen(course: Course, *events: dict, end: str = "\n") -> None:
    with open(course.events, "a") as file:
        for event in events:
            file.write(json.dumps(event) + end)


def planned(time: float = 0.0, **jobs: int) -> dict:
    return {"event": "planned", "jobs": jobs, "time": time}


def began(job: int, time: float, rule: str = "train", log: str | None = None) -> dict:
    return {"event": "began", "job": job, "rule": rule, "of": TRAIN, "log": log, "time": time}


def ended(job: int, time: float, how: str = "ended") -> dict:
    return {"event": how, "job": job, "time": time}


def test_nothing_is_known_before_there_is_something(course):
    course.read()
    assert (course.total, course.done, course.left(1.0)) == (0, 0, None)
    happen(course, planned(train=4), began(1, 0.0))
    course.read()
    assert (course.total, course.done, course.left(5.0)) == (4, 0, None)


def test_events_are_taken_in_once_and_whole(course):
    happen(course, planned(train=2), began(1, 0.0))
    course.read()
    half = json.dumps(ended(1, 3.0))
    with open(course.events, "a") as file:
        file.write(half[:10])
    course.read()
    assert course.done == 0 and len(course.running) == 1
    with open(course.events, "a") as file:
        file.write(half[10:] + "\n")
    course.read()
    course.read()
    assert course.done == 1 and not course.running


def test_the_time_left_is_that_of_jobs_of_their_rules(course):
    happen(
        course, planned(train=4, evaluate=1), began(1, 0.0), ended(1, 10.0),
        began(2, 10.0, "evaluate"), ended(2, 12.0), began(3, 12.0),
    )  # fmt: skip
    course.read()
    # One at a time: two trainings wait, and one runs since 4 of its 10 seconds.
    assert course.left(16.0) == pytest.approx(2 * 10 + 6)


def test_jobs_side_by_side_halve_it(course):
    happen(course, planned(train=6), *(began(n, 0.0) for n in (1, 2)))
    happen(course, *(ended(n, 10.0) for n in (1, 2)), *(began(n, 10.0) for n in (3, 4)))
    course.read()
    assert course.left(10.0) == pytest.approx((2 * 10 + 2 * 10) / 2)


def test_a_job_that_takes_longer_than_others_did_leaves_no_less_than_nothing(course):
    happen(course, planned(train=2), began(1, 0.0), ended(1, 1.0), began(2, 1.0))
    course.read()
    assert course.left(100.0) == 0.0


def test_a_job_that_failed_is_neither_at_work_nor_done(course):
    happen(course, planned(train=2), began(1, 0.0), ended(1, 1.0, "failed"))
    course.read()
    assert course.done == 0 and not course.running


@pytest.mark.parametrize(("seconds", "words"), [
    (None, ""), (12.4, "12 s left"), (600, "10 min left"), (9000, "2.5 h left"),
])  # fmt: skip
def test_times_are_said_as_people_say_them(seconds, words):
    assert in_words(seconds) == words


def test_a_jobs_step_is_where_the_last_bar_of_its_log_stands(tmp_path):
    log = tmp_path / "train.log"
    with open(log, "w") as file:
        for name, total in (("loading", 3), ("stage 1", 121)):
            with tqdm(total=total, desc=name, file=file, mininterval=0) as bar:
                for _ in range(3 if name == "loading" else 41):
                    bar.update()
        file.write("warning: 10 of the records\n")

    assert Job("train", TRAIN, log, 0.0).step() == ("stage 1", 41, 121)


def test_a_job_without_a_log_or_a_bar_has_no_step(tmp_path):
    log = tmp_path / "data.log"
    assert Job("data", {}, None, 0.0).step() is None
    assert Job("data", {}, log, 0.0).step() is None
    log.write_text("made 3/4 of it\n")
    assert Job("data", {}, log, 0.0).step() is None


def drawn(course: Course, terminal: bool) -> str:
    """What is on the screen when the workflow ends at the third look."""
    text, looks = io.StringIO(), iter([False, False, True])
    console = Console(file=text, force_terminal=terminal, width=100)
    screen.draw(course, lambda seconds: next(looks), console)
    return text.getvalue()


@pytest.fixture
def at_work(course, tmp_path) -> Course:
    log = tmp_path / "train.log"
    log.write_text("\rstage 1:  34%|###4      | 41/121 [00:05<00:10,  8.00it/s]")
    happen(course, planned(train=4), began(1, 0.0), ended(1, 10.0), began(2, 10.0, log=str(log)))
    return course


def test_without_a_terminal_there_is_a_line_at_each_look(at_work):
    first, second = drawn(at_work, terminal=False).splitlines()
    assert first.startswith("1 of 4 jobs, ")
    assert first.endswith("; train qwen3-s0 telecom full_ft seed 1,2 41/121")
    assert second.endswith(" 41/121")


def test_on_a_terminal_each_job_has_a_line_with_its_step_and_there_is_a_bar_of_all(at_work):
    text = drawn(at_work, terminal=True)
    assert "train qwen3-s0 telecom full_ft seed 1,2" in text and "41 of 121 stage 1" in text
    assert "all jobs" in text and "1 of 4" in text and "left" in text
