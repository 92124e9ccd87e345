"""Bytes a position of a written candidate store, beside what DistillKit's formula gives."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lrmoclip.core.candidates import select_candidates
from lrmoclip.core.store import CandidateStore, StoreWriter
from lrmoclip.speed.measure import row

VOCABULARY = 151_936
DISTILLKIT = {50: 127, 128: 344}  # k: bytes a position at this vocabulary, by its own formula
BOUND = {"base": "random", "tokenizer": "none", "data": "random"}


def size(device: torch.device) -> list[dict]:
    """Sets of exactly k tokens of random logits, 512 positions in records of 64."""
    rows = []
    for k, theirs in DISTILLKIT.items():
        settings = {"coverage": 1.0, "k_min": 1, "k_max": k}
        dice = torch.Generator().manual_seed(0)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "store"
            with StoreWriter(path, BOUND, vocabulary=VOCABULARY, settings=settings) as writer:
                for _ in range(8):
                    logits = 2 * torch.randn(64, VOCABULARY, generator=dice)
                    targets = logits.argmax(1)
                    writer.add(select_candidates(logits, targets, **settings), targets, [64])
            ours = CandidateStore.load(path, BOUND).describe()["bytes_per_position"]
        names = {"contestant": "CandidateStore", "baseline": "DistillKit's formula"}
        note = f"{ours:.0f} B a position against {theirs} B"
        case = f"V={VOCABULARY}, k={k}"
        rows.append(
            row("store", case, "bytes a position, ratio", ours / theirs, **names, note=note)
        )
    return rows
