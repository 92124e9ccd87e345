"""Options that several commands have, and what they are read as."""

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from lrmoclip.config import Scale, load
from lrmoclip.core.errors import UserError

NAMES = ("base", "domain", "method")  # of the scale's config, not paths
LARGEST_SEED = 2**31 - 1  # what every generator that is seeded takes


def add(command: ArgumentParser, *names: str, required: bool = True) -> None:
    """Options of one value each: names of the config, else paths."""
    for name in names:
        command.add_argument(f"--{name}", type=str if name in NAMES else Path, required=required)


def add_scale(command: ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, help="workflow/config/*.yaml")


def add_bench(command: ArgumentParser) -> None:
    """What Stage 1 of a base and domain works with."""
    add_scale(command)
    add(command, "base", "domain", "checkpoint")
    add_data(command)
    add(command, "store", "general-store", "fisher", required=False)


def add_data(command: ArgumentParser) -> None:
    add_several(command, "data", words="the scale's data folder, and those of `own-data`")


def add_several(command: ArgumentParser, name: str, kind: type = Path, words: str = "") -> None:
    command.add_argument(f"--{name}", type=kind, nargs="+", required=True, help=words or None)


def bench(config: Path, domain: str, **paths):
    """The workbench that `add_bench` describes. UserError for a domain that the config does not
    have; the sample of general text is none of its domains."""
    from lrmoclip.train.workbench import REPLAY, Workbench

    scale = load(config)
    if domain != REPLAY:
        scale.domain(domain)
    return Workbench(scale, domain=domain, **paths)


def check_runs(seeds: list[int], outs: list[Path], **lists: list) -> None:
    """Refuse lists of another number than there are seeds, a seed or a folder given twice, and a
    seed that no generator takes."""
    for name, values in {"outs": outs, **lists}.items():
        if len(values) != len(seeds):
            raise UserError(f"--seeds, --{name} differ in number", "Name one of each a run")
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"--seeds: {seed}", f"Allowed: whole numbers from 0 to {LARGEST_SEED}")
    for name, values in {"seeds": seeds, "outs": [os.path.realpath(out) for out in outs]}.items():
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"--{name}: {twice[0]} stands twice", "Name each once")


def share(scale: Scale) -> None:
    """Go on as one process a GPU, where the scale's config shares a run over several: this process
    becomes torchrun, which starts the same command line in each."""
    if scale.gpus <= 1 or "WORLD_SIZE" in os.environ:
        return
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*torchrun, "--nproc-per-node", str(scale.gpus), "-m", "lrmoclip", *sys.argv[1:]]
    os.execv(sys.executable, words)
