"""What we use of lm-eval beyond its public names, all of it, as version 0.4.13 has it; another
version may have it otherwise."""

from functools import cache
from pathlib import Path

import lm_eval.tasks
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._index import TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

VERSION = "0.4.13"
TASKS = Path(lm_eval.tasks.__file__).parent  # of its own tasks, a folder a family

Requests = list  # of (strings, token ids of the context, of the continuation)


def own_config(name: str) -> dict | None:
    """The configuration of lm-eval's task `name`, its functions resolved; None for no task.

    ImportError, AssertionError (a wrong version) for what the task itself needs.
    """
    # Its files lie in a folder named like the beginning of the task; reading all takes 20 s.
    words = name.split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    near = next((TASKS / b for b in beginnings if (TASKS / b).is_dir()), TASKS)
    entry = _index(near).get(name) or _index(TASKS).get(name)
    if entry is None or entry.yaml_path is None:
        return None
    return load_yaml(entry.yaml_path, resolve_func=True)


@cache
def _index(root: Path) -> dict:
    return TaskIndex.build([root])


def filters(task) -> list[str]:
    """The names of a task's filters, in order."""
    return [each.name for each in task._filters]


class TokensLM(HFLM):
    """HFLM whose log-likelihoods, token ids already, are asked of `likelihoods`."""

    def _loglikelihood_tokens(
        self, requests: Requests, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        return self.likelihoods(requests, disable_tqdm, override_bs)

    def likelihoods(
        self, requests: Requests, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """For each request the continuation's log probability and whether it is the greedy one;
        here as HFLM computes them."""
        return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
