"""Choosing parts of a collection by number, and fetching them checked; repeating resumes."""

from __future__ import annotations

import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vislang.curate.collections import Part
from vislang.errors import UserError
from vislang.files import run_units, sha256_file, sync_folder, whole_file
from vislang.lookup import nearest

BLOCK = 1 << 20
TRIES = 4
# The original's collections: (files, files taken, seed of the draw), in the order of names.
LAION5B: dict[str, tuple[int, int, int]] = {
    "laion1B-nolang": (1273, 50, 1337),
    "laion2B-en": (2314, 100, 0),
    "laion2B-multi": (2267, 100, 42),
}
# Below a base address; {group} and {number:04d} are filled in.
PATTERNS = {
    "laion5b": (
        "{group}/img_emb/img_emb_{number:04d}.npy",
        "{group}/{group}-metadata/metadata_{number:04d}.parquet",
    ),
    "clip-retrieval": (
        "{group}/img_emb/img_emb_{number}.npy",
        "{group}/metadata/metadata_{number}.parquet",
    ),
    "vislang": (
        "{group}/img_emb/img_emb_{number:04d}.npy",
        "{group}/metadata/metadata_{number:04d}.parquet",
    ),
}


@dataclass(frozen=True)
class Pick:
    """One part to fetch."""

    group: str
    number: int

    @property
    def unit(self) -> str:
        """Its name as a unit of work."""
        return Part(self.group, self.number, Path()).name.replace("/", "-")


def pick_shards(
    groups: Mapping[str, tuple[int, int, int]] | None = None,
) -> list[Pick]:
    """Parts drawn without replacement from each group, in the order drawn.

    Args:
        groups: name -> (files that there are, files to take, seed); LAION-5B's by default, whose
            250 are those of the original.

    >>> pick_shards({"a": (10, 3, 0)})[0]
    Pick(group='a', number=6)
    """
    picks = []
    for group, (files, take, seed) in sorted((LAION5B if groups is None else groups).items()):
        if not 0 <= take <= files:
            raise UserError(f"{group}: {take} of {files} files cannot be taken.")
        picks += [Pick(group, n) for n in random.Random(seed).sample(range(files), take)]
    return picks


def share_out(files: Mapping[str, int], count: int, seed: int = 0) -> dict[str, Any]:
    """Groups for `pick_shards` such that `count` files are taken in proportion to their numbers.

    >>> share_out({"a": 30, "b": 10}, 4)
    {'a': (30, 3, 0), 'b': (10, 1, 0)}
    """
    total, left, out = sum(files.values()), count, {}
    for place, (group, number) in enumerate(sorted(files.items())):
        rest = total - sum(files[g] for g in sorted(files)[:place])
        take = round(left * number / rest) if rest else 0
        out[group], left = (number, take, seed), left - take
    return out


def fetch_shards(
    base: str,
    picks: Sequence[Pick],
    out: Path | str,
    *,
    pattern: str = "laion5b",
    checksums: Mapping[str, str] | None = None,
    engine: str = "serial",
    workers: int | None = None,
    wait_s: float = 1.0,
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> dict[str, Mapping[str, Any]]:
    """Copy the picked parts into `out` (img_emb/ and metadata/ below each group); resumes.

    A half-fetched file is continued where the server allows it. Each pair is checked before it
    counts: whole files, as many rows in both.

    Args:
        base: a folder or an address of http(s), or of any file system that fsspec knows.
        picks: which.
        out: folder to fill.
        pattern: a key of PATTERNS: how files are called below `base`.
        checksums: file below base -> sha256, where they are published.
        engine: serial, processes or ray.
        workers: processes.
        wait_s: seconds before the second try; doubled for each further one.
        on_done: called after each pair.
    """
    if pattern not in PATTERNS:
        raise UserError(
            f"No pattern is called {pattern!r}.{nearest(pattern, PATTERNS)}"
            f" Known: {', '.join(PATTERNS)}."
        )
    units = {pick.unit: pick for pick in picks}
    work = partial(_fetch_pair, base.rstrip("/"), units, pattern, dict(checksums or {}), wait_s)
    settings = {"base": base, "pattern": pattern}
    return run_units(Path(out), list(units), work, settings, engine, workers, on_done)


def _fetch_pair(
    base: str, units: Mapping[str, Pick], pattern: str, sums: Mapping[str, str], wait_s: float,
    unit: str, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    pick, note = units[unit], {}
    files = []
    for kind, there, here in zip(("array", "table"), PATTERNS[pattern], PATTERNS["vislang"]):
        names = {"group": pick.group, "number": pick.number}
        path, remote = folder / here.format(**names), there.format(**names).lstrip("/")
        fetch_file(f"{base}/{remote}", path, wait_s=wait_s)
        found = sha256_file(path)
        if sums.get(remote, found) != found:
            path.unlink()
            raise UserError(
                f"{base}/{remote} has the checksum {found}, published is {sums[remote]}: it was"
                " removed here. Repeat the command; if it stays so, the file there has changed."
            )
        note[kind] = {"path": here.format(**names), "bytes": path.stat().st_size, "sha256": found}
        files.append(path)
    try:
        rows, width = Part(pick.group, pick.number, files[0], files[1]).shape
    except UserError:
        for path in files:  # so that repeating the command fetches them again
            path.unlink(missing_ok=True)
        raise
    return note | {"rows": rows, "width": width}


def fetch_file(address: str, path: Path, *, tries: int = TRIES, wait_s: float = 1.0) -> None:
    """Copy one file; a broken connection is continued, what fails for good is a UserError.

    The bytes grow in `<name>.part` beside the target and get its name when all are there.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    grown = path.with_name(f".{path.name}.part")
    last: Exception | None = None
    for turn in range(tries):
        if turn:
            time.sleep(wait_s * 2 ** (turn - 1))
        try:
            if address.startswith(("http://", "https://")):
                _continue_http(address, grown)
            else:
                _copy_fsspec(address, grown)
            grown.replace(path)
            sync_folder(path.parent)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what we have is not a beginning of what is there now
                grown.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"{address} answers {error.code} {error.reason}: it is not there, or not for"
                    " everyone. Check the base address and the pattern."
                ) from error
            last = error
        except FileNotFoundError as error:
            raise UserError(f"{address} does not exist. Check the base and the pattern.") from error
        except (OSError, EOFError) as error:
            last = error
    raise UserError(
        f"{address} could not be fetched in {tries} tries ({last}). Repeat the command later: it"
        " goes on from what is here."
    ) from last


def _continue_http(address: str, grown: Path) -> None:
    have = grown.stat().st_size if grown.exists() else 0
    headers = {"User-Agent": "vislang", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as r:
        goes_on = r.status == 206 and r.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        length = r.headers.get("Content-Length")
        expected = (have if goes_on else 0) + int(length) if length else None
        with open(grown, "ab" if goes_on else "wb") as file:
            while block := r.read(BLOCK):
                file.write(block)
            size = file.tell()
    if expected is not None and size != expected:
        raise EOFError(f"the connection ended after {size:,} of {expected:,} bytes")


def _copy_fsspec(address: str, grown: Path) -> None:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise UserError(f"{address} needs the package fsspec: pip install fsspec.") from error
    try:
        opened = fsspec.open(address, "rb")
    except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
        raise UserError(f"{address} cannot be opened: {error}") from error
    with opened as source, whole_file(grown) as file:  # type: ignore[union-attr]
        for block in _blocks(source):
            file.write(block)


def _blocks(file: Any) -> Iterable[bytes]:
    while block := file.read(BLOCK):
        yield block
