"""What a workflow's course looks like on a screen: one live line a running job and a bar of all; in
a file or a pipe a line each half minute."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lrmoclip.cli.course import Course, Job, in_words

POLL_S, LINE_S = 0.5, 30
LONGEST = 20  # letters of what a step is of


def draw(course: Course, ended: Callable[[float], bool], console: Console) -> None:
    """Until `ended`, which waits for so many seconds and says whether the workflow has ended."""
    if console.is_terminal:
        _live(course, ended, console)
    else:
        _lines(course, ended, console)


def _lines(course: Course, ended: Callable[[float], bool], console: Console) -> None:
    while not ended(LINE_S):
        course.read()
        if course.total:
            parts = [f"{course.done} of {course.total} jobs", in_words(course.left(time.time()))]
            jobs = [f"{job.words}{_at(job)}" for job in course.running.values()]
            line = "; ".join([", ".join(filter(None, parts)), *jobs])
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _at(job: Job) -> str:
    found = job.step()
    return f" {found[1]}/{found[2]}" if found else ""


def _live(course: Course, ended: Callable[[float], bool], console: Console) -> None:
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
    ]
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bars:
        whole = bars.add_task("all jobs", total=None, words="looking for what there is to do")
        tasks: dict[int, object] = {}
        while not ended(POLL_S):
            course.read()
            for job in tasks.keys() - course.running.keys():
                bars.remove_task(tasks.pop(job))
            for number, job in course.running.items():
                if number not in tasks:
                    tasks[number] = bars.add_task(job.words, total=None, words="")
                if step := job.step():
                    what, at, of = step
                    words = f"{at} of {of} {what[:LONGEST]}"
                    bars.update(tasks[number], completed=at, total=of, words=words)
            if course.total:
                left = in_words(course.left(time.time()))
                words = f"{course.done} of {course.total}  {left}"
                bars.update(whole, completed=course.done, total=course.total, words=words)
