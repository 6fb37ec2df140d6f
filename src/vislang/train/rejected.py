"""Rejected samples of all processes, for the one that writes the log."""

import json

import torch

from vislang.data.sample import Rejected
from vislang.devices import gather, row_counts
from vislang.train.setup import Place


def rejected_anywhere(rejected: list[Rejected], place: Place) -> list[Rejected]:
    """Rejected rows of all processes, on the first one (which writes the log)."""
    if place.group.world == 1:
        return rejected
    counts = row_counts(len(rejected), place.device)
    if not sum(counts):
        return []
    text = json.dumps([[r.id, r.reason, r.origin] for r in rejected]).encode()
    bytes_ = torch.tensor(list(text), dtype=torch.uint8, device=place.device)
    sizes = row_counts(len(bytes_), place.device)
    flat, rows, at = bytes(gather(bytes_, sizes).tolist()), [], 0
    for size in sizes:
        rows += json.loads(flat[at : at + size])
        at += size
    return [Rejected(*row) for row in rows]
