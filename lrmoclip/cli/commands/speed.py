"""Time store, loss and optimizer in turns with what others use."""

from pathlib import Path

from lrmoclip.cli.options import add


def options(command) -> None:
    command.add_argument("--threads", type=int, required=True, help="of torch")
    add(command, "out")


def run(threads: int, out: Path) -> None:
    """Write benchmarks.csv."""
    import torch

    from lrmoclip import speed
    from lrmoclip.core import artefacts, files, provenance

    with artefacts.file(out, "benchmarks") as made:
        torch.set_num_threads(threads)
        files.write_text(made.path / Path(out).name, speed.measure_all().to_csv(index=False))
        made.about |= provenance.stamp()
