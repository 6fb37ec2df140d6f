"""The original's numbers about described domains, as rows that the analyses read."""

import json
from pathlib import Path

import numpy as np

from vislang.evaluate.domains import MemoryRows
from vislang.metrics.true_class import unit64

FOLDER = Path(__file__).parent / "golden"
ARRAYS = np.load(FOLDER / "domains.npz")
NUMBERS = json.loads((FOLDER / "domains.json").read_text())


def class_vectors(name: str) -> dict[tuple[str, str], np.ndarray]:
    """(kind, domain) -> vectors, from the embeddings of single prompts."""
    text = ARRAYS[f"{name}.text"].astype(np.float64)
    label, of = ARRAYS[f"{name}.text_class"], ARRAYS[f"{name}.text_domain"]
    found = {}
    for d, domain in enumerate(ARRAYS[f"{name}.domains"].tolist()):
        each = [text[(label == c) & (of == d)] for c in range(label.max() + 1)]
        found["own", domain] = np.stack([unit64(rows).mean(axis=0) for rows in each])
        found["raw", domain] = np.stack([rows.mean(axis=0) for rows in each])
    found["standard", ""] = found["own", "noop"]
    return found


def memory_rows(name: str, **extra: np.ndarray) -> MemoryRows:
    """The golden images and texts called "small" or "full"; `extra`: further kinds of vectors."""
    domains = ARRAYS[f"{name}.domains"].tolist()
    label = ARRAYS[f"{name}.label"].astype(np.int64)
    images = dict(zip(domains, ARRAYS[f"{name}.image"].astype(np.float64)))
    texts = class_vectors(name) | {(kind, ""): rows for kind, rows in extra.items()}
    names = [f"class {c}" for c in range(label.max() + 1)]
    return MemoryRows(images, label, names, texts, [f"{i:03d}" for i in range(len(label))])
