"""The command line: one subcommand an arrow of the workflow, and the edge at which a user's mistake
becomes one line and exit status 2."""

import argparse
import importlib
import os
import pkgutil
import sys
import warnings

from lrmoclip.cli import commands
from lrmoclip.core.errors import UserError
from lrmoclip.core.files import is_full

# Nothing is downloaded but by `fetch`, and forked tokenizers only warn.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status (0, or 2 after a user's mistake)."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        arguments = vars(parser().parse_args(argv))
        run, online = arguments.pop("run"), arguments.pop("online", False)
        for name, value in ({} if online else OFFLINE).items():
            os.environ.setdefault(name, value)
        run(**arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_full(error):
            raise
        print(f"error: {error.filename or error}: no space left", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "lrmoclip").startswith("lrmoclip"):
            raise
        hint = "Install what it needs: pip install 'lrmoclip[workflow,benchmark]'"
        print(f"error: the command line needs {error.name}. {hint}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """All subcommands with their options: each is a module of `commands`, whose first line of
    documentation says what it does, with `options(command)` and `run(**options)`."""
    top = argparse.ArgumentParser(prog="lrmoclip", description=__doc__)
    found = top.add_subparsers(required=True, metavar="command")
    for each in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{each.name}")
        words = module.__doc__.split(".\n")[0].rstrip(".")
        command = found.add_parser(
            each.name.replace("_", "-"), help=words[0].lower() + words[1:], description=words
        )
        command.set_defaults(run=module.run)
        module.options(command)
    return top
