"""Foreign weights (.pt, .pth, .bin, .ckpt) as safetensors, without unpickling them here.

A child process with limits on memory, time and file size reads the file with `weights_only=True`
and writes plain tensors; this process sees only those.  What a file hides in its pickle then
harms, at worst, a process that is about to end.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.files import sha256_file, sync_folder

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pyth")
# Where training programs put the weights among optimizer state and the like, best first.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module")
TIMEOUT_S = 900


def cache_folder() -> Path:
    """Where converted files are kept: $VISLANG_CACHE, else the user's cache folder."""
    own = os.environ.get("VISLANG_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vislang"


def convert(path: Path | str, timeout_s: float = TIMEOUT_S) -> Path:
    """The safetensors twin of a foreign file of weights, made once for each content.

    Raises:
        UserError: the file holds code, is damaged, or needs more than the limits.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"Cannot read weights from {path.name}: the suffix must be .safetensors or one of"
            f" {', '.join(SUFFIXES)}."
        )
    folder = cache_folder() / "converted"
    target = folder / f"{sha256_file(path)}.safetensors"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".converting.", suffix=".tmp")
    os.close(handle)
    try:
        _run_child(path, Path(temporary), timeout_s)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    sync_folder(folder)
    return target


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside, whatever a library unpickles with `torch.load` goes through the child process.

    So the libraries' own code for downloads and old key names serves, and nothing pickled is read
    here. The change is global while it lasts: build models on one thread.
    """
    import torch

    real = torch.load

    def load(file: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(file, str | os.PathLike):
            raise UserError("Weights that lie inside another file are not unpickled here.")
        return read_converted(convert(os.fspath(file)))

    torch.load = load
    try:
        yield
    finally:
        torch.load = real


def read_converted(path: Path) -> dict[str, Any]:
    """The state dict of a converted file, with the version notes that torch keeps beside one."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        notes = json.loads((file.metadata() or {}).get("notes", "null"))
    if notes:
        state._metadata = OrderedDict(notes)  # type: ignore[attr-defined]
    return state


def _run_child(path: Path, target: Path, timeout_s: float) -> None:
    command = [sys.executable, "-m", "vislang.models.foreign", str(path.resolve()), str(target)]
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "PYTHONPATH")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Reading {path} took more than {timeout_s:.0f} s; it was given up."
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(
            f"Cannot take weights from {path}: {lines[-1][:500]} Only plain tensors are read, in"
            " a process of its own with limits; ask whoever made the file for safetensors."
        )


def main(source: str, target: str) -> None:
    """In the child: read plain tensors, write safetensors."""
    _limit(os.path.getsize(source))
    import torch
    from safetensors.torch import save_file

    try:
        value = torch.load(source, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        first = str(error).strip().split("\n")[0][:300]
        sys.exit(f"it is not a file of plain tensors ({type(error).__name__}: {first}).")
    tensors, notes = find_tensors(value)
    if not tensors:
        sys.exit("it holds no state dict (a mapping of names to tensors).")
    # A copy each: safetensors refuses tensors that share memory.
    copies = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(copies, target, {"notes": json.dumps(notes)})


def find_tensors(value: Any) -> tuple[dict[str, Any], Any]:
    """The state dict in what a training program saved (itself, or under one of NESTED), and
    torch's version notes.

    >>> import torch
    >>> find_tensors({"epoch": 3, "state_dict": {"weight": torch.zeros(1)}})
    ({'weight': tensor([0.])}, None)
    """
    import torch

    if not isinstance(value, Mapping):
        return {}, None
    for key in NESTED:
        inner = value.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, torch.Tensor) for v in inner.values()):
            value = inner
            break
    notes = getattr(value, "_metadata", None)
    return {str(k): v.detach() for k, v in value.items() if isinstance(v, torch.Tensor)}, notes


def _limit(size: int) -> None:
    """Bound what the child may take: data, processor time, written bytes, open files."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return
    for what, most in (
        (resource.RLIMIT_DATA, 4 * size + (4 << 30)),
        (resource.RLIMIT_CPU, TIMEOUT_S),
        (resource.RLIMIT_FSIZE, 2 * size + (64 << 20)),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
