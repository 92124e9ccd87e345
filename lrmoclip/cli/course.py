"""The course of a workflow, by its events: which jobs are at work and how far, how many are left,
and for how long."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

# Wildcards worth naming, in this order; of a scale that runs alone everyone knows.
NAMED = ("base", "domain", "method")
TAIL = 4096  # bytes of a log in which its last bar is looked for
BAR = re.compile(r"(?:([^\r\n|%]*?): +)?\d+%\|[^|]*\| *(\d+)/(\d+) \[")  # as tqdm draws it


@dataclass(frozen=True)
class Job:
    rule: str
    of: dict[str, str]
    log: Path | None
    began: float

    @property
    def words(self) -> str:
        words = [self.rule, *(self.of[name] for name in NAMED if name in self.of)]
        if seeds := self.of.get("seeds"):
            words.append(f"seed {seeds.replace('_', ',')}")
        return " ".join(words)

    def step(self) -> tuple[str, int, int] | None:
        """What its log's last bar is of, the step that it is at, and of how many."""
        try:
            with open(self.log or "", "rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return None
        bars = BAR.findall(text)
        return (bars[-1][0].strip(), int(bars[-1][1]), int(bars[-1][2])) if bars else None


@dataclass
class Course:
    """Fed by `read`. planned: jobs a rule; took: seconds of those that ended, by rule."""

    events: Path
    planned: Counter[str] = field(default_factory=Counter)
    running: dict[int, Job] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)
    began: float | None = None
    _read: int = 0

    @property
    def total(self) -> int:
        return self.planned.total()

    @property
    def done(self) -> int:
        return sum(map(len, self.took.values()))

    def read(self) -> None:
        """Take in what happened since; a line that is not whole yet is left for later."""
        if not self.events.exists():
            return
        with open(self.events, "rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for line in new.splitlines():
            self._take(json.loads(line))

    def _take(self, event: dict) -> None:
        kind, now = event["event"], event["time"]
        if kind == "planned":
            self.planned, self.began = Counter(event["jobs"]), now
        elif kind == "began":
            log = Path(event["log"]) if event["log"] else None
            self.running[event["job"]] = Job(event["rule"], event["of"], log, now)
        elif (job := self.running.pop(event["job"], None)) and kind == "ended":
            self.took.setdefault(job.rule, []).append(now - job.began)

    def left(self, now: float) -> float | None:
        """Seconds, None as long as nothing is known: what is not done takes as long as jobs of its
        rule took (as all took, where none has ended), as many at once as before."""
        times = [seconds for several in self.took.values() for seconds in several]
        if not times:
            return None
        mean = {rule: fmean(several) for rule, several in self.took.items()}
        at_work = Counter(job.rule for job in self.running.values())
        waiting = self.planned - Counter({rule: len(s) for rule, s in self.took.items()}) - at_work
        work = sum(count * mean.get(rule, fmean(times)) for rule, count in waiting.items())
        so_far = [(job.rule, now - job.began) for job in self.running.values()]
        rest = [max(0.0, mean.get(rule, fmean(times)) - took) for rule, took in so_far]
        busy = sum(times) + sum(took for _, took in so_far)
        at_once = max(1.0, busy / (now - self.began))
        return max([(work + sum(rest)) / at_once, *rest])


def in_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"
