"""The plan of the house: imports go from the command line towards the core and never back, and
nobody but `methods/` asks which entry a method has."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrmoclip.methods import axes
from tests.support import ROOT

PACKAGE = ROOT / "lrmoclip"
# From below; a wing may import itself and those before it.
WINGS = [
    "core", "edge", "data", "methods", "config", "models", "evaluate", "train", "report", "cost",
    "speed", "cli",
]  # fmt: skip
OF_CORE = {"torch", "safetensors", "numpy", "filelock"}


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def imported(path: Path, root: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    package = [root.name, *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*above, *filter(None, [node.module])])
            # What is imported may be a module itself: `from lrmoclip import speed`.
            yield from (f"{home}.{alias.name}" for alias in node.names)


def wing(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE.name and len(parts) > 1 and parts[1] in WINGS else None


def upward(root: Path) -> list[str]:
    """Each import of a wing by one that stands below it."""
    found = []
    for path in files(root):
        own = path.relative_to(root).parts[0]
        if own in WINGS:
            for other in filter(None, map(wing, imported(path, root))):
                if WINGS.index(other) > WINGS.index(own):
                    found.append(f"{path.relative_to(root)} imports {other}")
    return found


def names_of_entries() -> set[str]:
    """What methods.yaml may say on any axis."""
    import lrmoclip.methods  # registers all entries

    assert lrmoclip.methods
    kinds = axes.Entry.__subclasses__()
    entries = [entry for kind in kinds for entry in kind.__subclasses__()]
    return {entry.model_fields["name"].default for entry in entries}


def asked_by_name(root: Path, names: set[str]) -> list[str]:
    """Each literal outside `methods/` that is an entry's name and is compared with, looked up or
    matched."""
    found = []
    for path in files(root):
        if path.relative_to(root).parts[0] == "methods":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asked: list[ast.AST] = []
            if isinstance(node, ast.Compare):
                asked = [node.left, *node.comparators]
            if isinstance(node, ast.Subscript):
                asked = [node.slice]
            if isinstance(node, ast.Dict):
                asked = [key for key in node.keys if key]
            if isinstance(node, ast.MatchValue):
                asked = [node.value]
            inner = [part for each in asked for part in ast.walk(each)]
            found += [
                f"{path.relative_to(root)}, line {part.lineno}: {part.value}"
                for part in inner
                if isinstance(part, ast.Constant) and part.value in names
            ]
    return found


def test_every_folder_is_a_wing():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(WINGS)


def test_no_import_goes_up():
    assert upward(PACKAGE) == []


def test_the_core_needs_nothing_else():
    modules = [
        name for path in files(PACKAGE / "core") for name in imported(path, PACKAGE / "core")
    ]
    roots = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert roots <= OF_CORE | {PACKAGE.name}
    assert {wing(name) for name in modules} <= {None, "core"}


def test_nobody_asks_for_an_entrys_name():
    assert asked_by_name(PACKAGE, names_of_entries() - {"none"}) == []


PLANTED = {
    "core/bad.py": "def late():\n    from lrmoclip.data import records\n",
    "data/bad.py": "from ..train import run\n",
    "train/bad.py": "from lrmoclip import report\n",
    "methods/bad.py": "import lrmoclip.cli.main as edge\n",
}


@pytest.mark.parametrize("name", PLANTED)
def test_an_import_that_goes_up_is_seen(tmp_path, name):
    path = tmp_path / "lrmoclip" / name
    path.parent.mkdir(parents=True)
    path.write_text(PLANTED[name])
    assert [line.split()[0] for line in upward(tmp_path / "lrmoclip")] == [name]


@pytest.mark.parametrize(
    "code",
    [
        'if penalty == "ewc": pass',
        'cheap = method.objective.name in ("full", "restricted")',
        'PASSES = {"moclip": 18}',
        'states = TABLE["adamw"]',
        'match name:\n    case "lora":\n        pass',
    ],
)
def test_asking_for_an_entry_is_seen(tmp_path, code):
    path = tmp_path / "lrmoclip" / "train" / "bad.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert asked_by_name(tmp_path / "lrmoclip", names_of_entries())
