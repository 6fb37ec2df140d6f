"""Reading a store: ours with a manifest, or a folder of LAION's or clip-retrieval's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError
from vislang.files import read_json, sha256_file
from vislang.store.rows import Rows
from vislang.store.writer import ARRAYS, FORMAT, MANIFEST, TABLES

if TYPE_CHECKING:
    import pyarrow as pa


class Store:
    """Embeddings on disk with what is known of each row.

    Attributes:
        image: [n, D], or None.
        text: [m, D], or None.
        features: [n, F], the image tower's output before the head, or None.
        manifest: what its writer noted; empty for a foreign folder.
    """

    def __init__(self, folder: Path, files: Mapping[str, Sequence[Path]], manifest: dict[str, Any]):
        self.folder, self.manifest, self._files = folder, manifest, files
        rows = {name: Rows(files[name]) if files.get(name) else None for name in ARRAYS}
        self.image, self.text, self.features = rows["image"], rows["text"], rows["features"]
        self._check_joins()

    def __len__(self) -> int:
        """Rows of the metadata: images, or samples where only texts were embedded."""
        if self.image is not None:
            return len(self.image)
        return self.metadata.num_rows

    def __repr__(self) -> str:
        texts = f", {len(self.text):,} texts" if self.text is not None else ""
        return f"Store({str(self.folder)!r}: {len(self):,} rows{texts})"

    @property
    def width(self) -> int:
        """D, of the shared space."""
        rows = self.image if self.image is not None else self.text
        if rows is None:
            raise UserError(f"The store {self.folder} holds neither image nor text embeddings.")
        return rows.shape[1]

    @property
    def settings(self) -> dict[str, Any]:
        """What the embeddings depend on, as their writer noted it."""
        return self.manifest.get("settings", {})

    @cached_property
    def metadata(self) -> pa.Table:
        """One row an image: id, label, caption ..., or whatever a foreign folder has."""
        return self._read("metadata")

    @cached_property
    def text_metadata(self) -> pa.Table:
        """One row a text: `text` and `image_row`, counted over the whole store."""
        import pyarrow as pa

        if not self._files.get("text_metadata"):
            if self.text is None:
                raise UserError(f"The store {self.folder} has no texts.")
            # LAION's texts join their images row by row.
            columns: dict[str, Any] = {"image_row": np.arange(len(self.text))}
            for name in ("caption", "text", "TEXT"):
                if name in self.metadata.column_names:
                    columns["text"] = self.metadata[name]
                    break
            return pa.table(columns)
        table = self._read("text_metadata")
        starts = np.concatenate([[0], np.cumsum(self._counts("metadata"))])
        offset = np.repeat(starts[:-1], self._counts("text_metadata"))
        place = table.column_names.index("image_row")
        whole = pa.array(table["image_row"].to_numpy() + offset)
        return table.set_column(place, "image_row", whole)

    @cached_property
    def rejected(self) -> list[tuple[str, str, str]]:
        """(id, reason, origin) of the samples that could not be used."""
        path = self.folder / "rejected.parquet"
        if not path.exists():
            return []
        table = _read_table(path)
        return list(zip(*(table[name].to_pylist() for name in ("id", "reason", "origin"))))

    def row_of(self, ids: str | Sequence[str]) -> np.ndarray:
        """Row numbers of ids; an id that is not there is a UserError.

        Ids are the column `id`, or in a foreign folder the first of `key`, `image_path`, `url`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = [ids] if isinstance(ids, str) else list(ids)
        names = [c for c in ("id", "key", "image_path", "url") if c in self.metadata.column_names]
        if not names:
            raise UserError(
                f"{self.folder} has no column of ids; it has"
                f" {', '.join(self.metadata.column_names)}. Use row numbers."
            )
        column = self.metadata[names[0]].cast(pa.string()).combine_chunks()
        # fill_null: a missing id gets -1 instead of null, and so stays an integer.
        found = pc.fill_null(pc.index_in(pa.array(wanted, pa.string()), column), -1)  # type: ignore[attr-defined]
        rows = found.to_numpy(zero_copy_only=False).astype(np.int64)
        if (rows < 0).any():
            missing = wanted[int(np.flatnonzero(rows < 0)[0])]
            raise UserError(f"{self.folder} has no row with the {names[0]} {missing!r}.")
        return rows

    def verify(self) -> None:
        """Read every file and compare it with its checksum in the manifest."""
        if not self.manifest:
            raise UserError(f"{self.folder} has no manifest, so there are no checksums to verify.")
        notes = [note for part in self.manifest["parts"] for note in part["files"].values()]
        for note in [*notes, self.manifest["rejected"]]:
            path = self.folder / note["path"]
            if not path.exists() or sha256_file(path) != note["sha256"]:
                raise UserError(
                    f"{path} is not what was written (its checksum differs). Restore it, or remove"
                    f" {self.folder} and embed the source anew."
                )

    def _read(self, name: str) -> pa.Table:
        import pyarrow as pa

        if not self._files.get(name):
            raise UserError(f"The store {self.folder} has no {name}.")
        tables = [_read_table(path) for path in self._files[name]]
        return pa.concat_tables(tables, promote_options="permissive")

    def _counts(self, name: str) -> list[int]:
        import pyarrow.parquet as pq

        return [_parquet(path, pq.read_metadata).num_rows for path in self._files[name]]

    def _check_joins(self) -> None:
        """Rows join by position, so the parts must have as many rows as their metadata."""
        counts = {"metadata": self._counts("metadata") if self._files.get("metadata") else None}
        if self._files.get("text_metadata"):
            counts["text_metadata"] = self._counts("text_metadata")
        for name, rows in (("image", self.image), ("text", self.text), ("features", self.features)):
            of = "text_metadata" if name == "text" and "text_metadata" in counts else "metadata"
            expected = counts[of]
            if rows is None or expected is None:
                continue
            for path, have, want in zip(rows.paths, rows.counts, expected):
                if have != want:
                    raise UserError(
                        f"{path} has {have:,} rows, but its {of} has {want:,}: they are not of the"
                        " same part. Restore the files that belong together."
                    )


def open_store(folder: Path | str) -> Store:
    """Open a store folder.

    Raises:
        UserError: there is none, it was never finished, a file is torn, or files do not join.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no store folder {folder}. `vislang embed` makes one.")
    if (folder / MANIFEST).exists():
        return _open_own(folder)
    if (folder / "settings.json").exists() or (folder / "units").is_dir():
        raise UserError(
            f"{folder} has no {MANIFEST}, which `vislang embed` writes last: it was interrupted."
            " Run the same command again to finish it."
        )
    return _open_foreign(folder)


def _open_own(folder: Path) -> Store:
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise UserError(
            f"{folder / MANIFEST} is not of this format: {got!r}, known is {FORMAT!r}."
            " It was made by another program or version: embed the source anew in another folder."
        )
    files: dict[str, list[Path]] = {name: [] for name in (*ARRAYS, *TABLES)}
    for part in manifest["parts"]:
        for name, note in part["files"].items():
            path = folder / note["path"]
            if not path.exists():
                raise UserError(f"{path} is missing: restore it, or embed the source anew.")
            if path.stat().st_size != note["bytes"]:
                raise UserError(
                    f"{path} is torn: {path.stat().st_size:,} bytes, written were"
                    f" {note['bytes']:,}. Restore it, or embed the source anew."
                )
            files[name].append(path)
    return Store(folder, files, manifest)


def _open_foreign(folder: Path) -> Store:
    """img_emb_<n>.npy, text_emb_<n>.npy, metadata_<n>.parquet, here or one folder down."""
    found = {
        name: _numbered(folder, stem, suffix)
        for name, stem, suffix in (
            ("image", "img_emb", ".npy"),
            ("text", "text_emb", ".npy"),
            ("metadata", "metadata", ".parquet"),
        )
    }
    if not (found["image"] or found["text"]):
        raise UserError(
            f"{folder} is no store: it has neither {MANIFEST} nor img_emb_*.npy or text_emb_*.npy"
            " (the layout of LAION and clip-retrieval). Give the folder that holds them."
        )
    numbers = {name: set(paths) for name, paths in found.items() if paths}
    every = set.union(*numbers.values())
    for name, have in numbers.items():
        if have != every:
            raise UserError(
                f"{folder}: the parts {sorted(every - have)[:5]} have no {name} file, though"
                " others do. Fetch what is missing, or remove the rest of those parts."
            )
    files = {name: [paths[n] for n in sorted(paths)] for name, paths in found.items()}
    return Store(folder, files, {})


def _numbered(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    """Files `<stem>_<number><suffix>` by number: 2 comes before 10, unlike in a sort of names."""
    pattern = re.compile(rf"{stem}_(\d+){re.escape(suffix)}")
    found: dict[int, Path] = {}
    for path in sorted([*folder.glob(f"{stem}_*"), *folder.glob(f"*/{stem}_*")]):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise UserError(f"{found[number]} and {path} are both part {number} of {stem}.")
        found[number] = path
    return found


def _read_table(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return _parquet(path, pq.read_table)


def _parquet(path: Path, read: Any) -> Any:
    import pyarrow as pa

    try:
        return read(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or embed the source anew.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is no whole Parquet file ({str(error).splitlines()[0]})."
            " Restore it, or embed the source anew."
        ) from error
