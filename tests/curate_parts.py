"""Small collections on disk, in LAION's layout, for the tests of curation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def embeddings(n: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float16)


def add_part(
    root: Path, group: str, number: int, rows: np.ndarray, columns: dict | None = None
) -> Path:
    """One img_emb array and its table below `root`; returns the array's path."""
    array = root / group / "img_emb" / f"img_emb_{number:04d}.npy"
    table = root / group / f"{group}-metadata" / f"metadata_{number:04d}.parquet"
    for path in (array, table):
        path.parent.mkdir(parents=True, exist_ok=True)
    np.save(array, rows)
    n = len(rows)
    plain = {
        "url": [f"http://{group}.example/{number}/{i}.jpg" for i in range(n)],
        "caption": [f"picture {i}" for i in range(n)],
    }
    pq.write_table(pa.table(plain | (columns or {})), table)
    return array
