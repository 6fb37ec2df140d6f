"""Files that are whole or absent, fingerprints, and the one way to run and resume long work."""

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from vislang.errors import UserError

DONE = "done.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(UserError):
    """No file can be written any more; work that goes on would only be lost."""


@contextlib.contextmanager
def whole_file(path: Path | str, mode: str = "wb") -> Iterator[Any]:
    """Open a temporary file beside `path`; on leaving without error it becomes `path`.

    The bytes are synced before the rename and the folder after it, so that a reader, also one
    after a power cut, sees the old file or the new one, never a part. On an error (a full disk,
    an interrupt) the temporary file is removed and the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DiskFull(
                f"The disk is full: could not write {path}. Everything written before is intact;"
                " free some space and repeat the same command to go on."
            ) from error
        raise
    sync_folder(path.parent)


_UMASK = os.umask(0)
os.umask(_UMASK)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut (a no-op where folders cannot be opened)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_whole(path: Path | str, content: bytes | str) -> None:
    """Write bytes or text so that the file is whole or absent."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON (dataclasses and paths allowed) so that the file is whole or absent."""
    write_whole(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a torn or foreign one is a clear error."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Remove it or restore it.") from error


def plain(value: Any) -> Any:
    """Dataclasses, tuples, sets, paths and numpy numbers as what JSON knows.

    >>> plain({"a": (1, Path("b"))})
    {'a': [1, 'b']}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        return plain(value.tolist())  # type: ignore[union-attr]
    return value


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that change whenever `value` (anything that `plain` knows) does.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_file(path: Path | str) -> str:
    """Checksum of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def npy_bytes(array: Any) -> bytes:
    """An array as the bytes of a .npy file (no pickle)."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted names whose values differ between two nested settings.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b (1 -> 3)']
    """
    found = []
    for key in sorted(set(old) | set(new)):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += [f"{key}.{rest}" for rest in differences(left, right)]
        elif left != right:
            found.append(f"{key} ({left!r} -> {right!r})")
    return found


def same_settings(path: Path, settings: Mapping[str, Any], what: str) -> None:
    """Refuse to go on in a folder that was made under other settings; else note them."""
    settings = plain(settings)
    if path.exists():
        changed = differences(read_json(path), settings)
        if changed:
            raise UserError(
                f"{what} {path.parent} was made with other settings: {', '.join(changed)}."
                " Use the same settings to go on, or another folder to start anew."
            )
    else:
        write_json(path, settings)


def cores() -> int:
    """Cores that this process may use; a container may have fewer than the machine."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def run_units(
    folder: Path | str,
    units: Sequence[str],
    work: Callable[[str, Path], Mapping[str, Any] | None],
    settings: Mapping[str, Any],
    engine: str = "serial",
    workers: int | None = None,
    on_done: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> dict[str, Mapping[str, Any]]:
    """Run `work(unit, folder)` for every unit that has no note yet; repeating it *is* resuming.

    A unit is whole or absent: its note `units/<unit>.json` (what `work` returned) is written
    after its files. A folder made under other settings is refused, naming them. A unit that
    fails does not stop the others; the first failure is raised at the end, when all that can
    be finished is finished. A disk that is full ends the work at once.

    Args:
        folder: where files and notes go.
        units: names, fit for file names, in the order in which to run.
        work: writes the unit's files with `whole_file` and returns a JSON-able note.
        settings: everything that the files depend on.
        engine: "serial", or "processes" (`work` must be picklable: a module-level function
            or a functools.partial of one), or "ray" (an existing cluster, if ray is installed).
        workers: processes to use; default all cores.
        on_done: called in this process with (unit, note) after each unit, for progress.

    Returns:
        unit -> note, for all units, those of earlier runs included.
    """
    folder = Path(folder)
    same_settings(folder / "settings.json", settings, "The folder")
    notes_folder = folder / "units"
    done: dict[str, Mapping[str, Any]] = {}
    left = []
    for unit in units:
        note = notes_folder / f"{unit}.json"
        if note.exists():
            done[unit] = read_json(note)
        else:
            left.append(unit)
    failures: list[tuple[str, BaseException]] = []

    def finish(unit: str, result: Mapping[str, Any] | None) -> None:
        note = plain(result or {})
        write_json(notes_folder / f"{unit}.json", note)
        done[unit] = note
        if on_done:
            on_done(unit, note)

    if engine == "serial":
        for unit in left:
            try:
                finish(unit, work(unit, folder))
            except DiskFull:
                raise
            except Exception as error:
                failures.append((unit, error))
    elif engine == "processes":
        with ProcessPoolExecutor(workers or cores()) as pool:
            futures = {pool.submit(work, unit, folder): unit for unit in left}
            for future in as_completed(futures):
                try:
                    finish(futures[future], future.result())
                except DiskFull:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
                except Exception as error:
                    failures.append((futures[future], error))
    elif engine == "ray":
        _run_on_ray(left, work, folder, finish, failures)
    else:
        raise UserError(f"No engine is called {engine!r}. Known: serial, processes, ray.")
    if failures:
        unit, error = failures[0]
        if isinstance(error, UserError) and len(failures) == 1:
            raise error
        raise UserError(
            f"{len(failures)} of {len(units)} units failed, first {unit!r}: {error}."
            f" The other {len(done)} are finished and kept: repeat the command to try these again."
        ) from error
    return {unit: done[unit] for unit in units}


def _run_on_ray(left, work, folder, finish, failures) -> None:  # pragma: no cover
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError("engine 'ray' needs ray: pip install 'vislang[ray]'.") from error
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    remote = ray.remote(lambda unit, folder: work(unit, folder))  # ray takes no partial
    waiting = {remote.remote(unit, folder): unit for unit in left}
    while waiting:
        ready, _ = ray.wait(list(waiting))
        for reference in ready:
            unit = waiting.pop(reference)
            try:
                finish(unit, ray.get(reference))
            except Exception as error:
                failures.append((unit, error))
