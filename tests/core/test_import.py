"""What a practitioner gets who installs the package without its extras."""

import ast
import subprocess
import sys
import tomllib

import lrmoclip
from tests.support import ROOT

PUBLIC = [
    "CandidateStore", "Candidates", "MoClip", "StoreWriter", "restricted_linear_cross_entropy",
    "select_candidates",
]  # fmt: skip
CORE = """
import importlib.metadata, re, sys
from importlib.machinery import PathFinder

def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()

def needs(name, found):  # the distributions that one brings along, without extras
    if name in found:
        return found
    found.add(name)
    for line in importlib.metadata.requires(name) or []:
        if "extra ==" not in line:
            needs(canonical(re.split(r"[^A-Za-z0-9_.-]", line)[0]), found)
    return found

# torch, safetensors and numpy, and what those bring.
allowed = set().union(*(needs(name, set()) for name in ("torch", "safetensors", "numpy")))
homes = importlib.metadata.packages_distributions()

class Installed:  # finds nothing of any other distribution
    def find_spec(self, name, path=None, target=None):
        owners = {canonical(d) for d in homes.get(name.split(".")[0], [])}
        if not owners or owners & (allowed | {"lrmoclip"}):
            return PathFinder.find_spec(name, path, target)

sys.meta_path = [Installed() if finder is PathFinder else finder for finder in sys.meta_path]
"""
TRAINING = """
import tempfile, torch
from lrmoclip import *
from lrmoclip.core.heads import Head
from tests.support import ROOT

limits = {"coverage": 0.9, "k_min": 1, "k_max": 4}
bound = {"base": "x", "tokenizer": "x", "data": "x"}
head, hidden = torch.nn.Linear(8, 30), torch.randn(6, 8)
targets = torch.arange(6)
with tempfile.TemporaryDirectory() as folder:
    with StoreWriter(folder + "/store", bound, vocabulary=30, settings=limits) as writer:
        logits = Head(head.weight).logits(hidden).detach()
        writer.add(select_candidates(logits, targets, **limits), targets, [6])
    sets = CandidateStore.load(folder + "/store", bound).batch([0])
    optimizer = MoClip(head.parameters(), lr=0.1)
    losses = []
    for _ in range(9):
        loss = restricted_linear_cross_entropy(hidden, head.weight, sets, targets, bias=head.bias)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
assert losses[-1] < losses[0]
"""


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_core_needs_torch_safetensors_and_numpy_alone():
    done = python(CORE + TRAINING)
    assert done.returncode == 0, done.stderr


def test_the_command_line_says_what_to_install():
    done = python(
        CORE + "from lrmoclip.cli.main import main\n"
        "sys.exit(main('base --config a --base b --data c --out d'.split()))"
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert (
        line.startswith("error: the command line needs") and "lrmoclip[workflow,benchmark]" in line
    )


def test_the_package_lists_its_names_without_importing_torch():
    done = python(
        "import sys, lrmoclip; print(*dir(lrmoclip)); assert 'torch' not in sys.modules;"
        "print(lrmoclip.__version__)"
    )

    names, version = done.stdout.splitlines()
    assert names.split() == sorted([*PUBLIC, "__version__"])
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_a_type_checker_sees_the_names_that_are_loaded():
    tree = ast.parse((ROOT / "lrmoclip" / "__init__.py").read_text(encoding="utf-8"))
    [guarded] = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {name.name: node.module for node in guarded.body for name in node.names}

    assert homes == {name: getattr(lrmoclip, name).__module__ for name in PUBLIC}
    assert sorted(homes) == lrmoclip.__all__
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packaged["package-data"]["lrmoclip"] == ["py.typed"]
    assert (ROOT / "lrmoclip" / "py.typed").is_file()
