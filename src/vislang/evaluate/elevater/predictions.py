"""Predictions of one model on ELEVATER's sets, and the zip that its leaderboard takes.

A file holds the probabilities of one set by one or several seeds. Ours are safetensors with the
facts as metadata; the toolkit's JSON files are read as well. The zip is the toolkit's: the JSON
`all_predictions.json` with six decimals. N: test samples, C: classes, S: seeds.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.elevater_sets import ELEVATER, ElevaterSet
from vislang.errors import UserError
from vislang.files import read_json, whole_file, write_whole
from vislang.lookup import nearest

if TYPE_CHECKING:
    from jaxtyping import Float

MEMBER, SUFFIX = "all_predictions.json", ".safetensors"
FEW_SEEDS = (0, 1, 2)
_NOTE = "elevater"


@dataclass(frozen=True)
class Predictions:
    """Probabilities and what the leaderboard asks about them.

    Args:
        model_name: of the model.
        dataset_name: of the set, as registered.
        num_trainable_params, num_params, num_visual_params, num_backbone_params: numbers trained,
            of the whole classifier, of the image side, of the model without the classifying head.
        n_shot: 0 zero-shot, -1 all samples, else shots a class.
        rnd_seeds: of the shots.
        predictions: [S, N, C], in the order of the test index.
    """

    model_name: str
    dataset_name: str
    num_trainable_params: float
    num_params: int
    num_visual_params: int
    num_backbone_params: int
    n_shot: int
    rnd_seeds: tuple[int, ...]
    predictions: Float[np.ndarray, "S N C"]

    def facts(self) -> dict[str, Any]:
        """Everything but the probabilities, in the toolkit's order."""
        body = asdict(replace(self, predictions=np.empty(0)))
        return {k: list(v) if k == "rnd_seeds" else v for k, v in body.items()
                if k != "predictions"}  # fmt: skip


def write_predictions(found: Predictions, folder: Path | str) -> Path:
    """Write seed<S>_<set>.safetensors, or <set>.safetensors of zero-shot; whole or absent."""
    from safetensors.numpy import save

    seed = f"seed{found.rnd_seeds[0]}_" if found.n_shot else ""
    path = Path(folder) / f"{seed}{found.dataset_name}{SUFFIX}"
    tensors = {"predictions": np.ascontiguousarray(found.predictions, np.float32)}
    write_whole(path, save(tensors, {_NOTE: json.dumps(found.facts())}))
    return path


def read_predictions(path: Path | str) -> Predictions:
    """Read one of our files, or one of the toolkit's JSON files."""
    path = Path(path)
    if path.suffix == ".json":
        content = read_json(path)
        rows = content.get("predictions") if isinstance(content, dict) else None
        facts = content if isinstance(content, dict) else {}
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                rows = file.get_tensor("predictions")
                facts = json.loads((file.metadata() or {})[_NOTE])
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path} holds no predictions of ELEVATER ({error}).") from error
    known = [name for name in Predictions.__dataclass_fields__ if name != "predictions"]
    lost = [name for name in known if name not in facts]
    if rows is None or lost:
        raise UserError(f"{path} holds no predictions: it lacks {', '.join(lost or ['them'])}.")
    try:
        array = np.asarray(rows, np.float32 if path.suffix != ".json" else np.float64)
    except ValueError as error:  # ragged
        raise UserError(f"{path}: the predictions are no array [seeds, N, C] ({error}).") from error
    told: dict[str, Any] = {name: facts[name] for name in known} | {
        "rnd_seeds": tuple(facts["rnd_seeds"])
    }
    return Predictions(**told, predictions=array)


def find_predictions(paths: Iterable[Path | str], task: str = "") -> list[Path]:
    """Files of predictions below these paths, sorted.

    Args:
        paths: files, folders of files, or what `vislang evaluate --suite elevater` wrote to.
        task: of the latter, which of its tasks, as in probe-5; may be left out where there is one.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise UserError(f"There are no predictions {path}: give files or their folders.")
        home = path / "elevater" / "predictions"
        if home.is_dir():
            tasks = sorted(entry.name for entry in home.iterdir() if entry.is_dir())
            if (not task and len(tasks) > 1) or (task and task not in tasks):
                raise UserError(
                    f"{path} has predictions of {', '.join(tasks)}: a submission is of one of them"
                    f" (--task).{nearest(task, tasks)}"
                )
            path = home / (task or tasks[0])
        files = sorted(p for p in path.iterdir() if p.suffix in (SUFFIX, ".json"))
        if not files:
            raise UserError(f"{path} holds no predictions (*{SUFFIX} or *.json).")
        found += files
    return found


def combine(parts: Iterable[Predictions]) -> list[Predictions]:
    """One record a set: seeds behind each other, in the order given.

    Raises:
        UserError: parts of one set that are of different models, shots or sizes, or the same seed.
    """
    groups: dict[str, list[Predictions]] = {}
    for part in parts:
        groups.setdefault(part.dataset_name, []).append(part)
    made = []
    for name, group in groups.items():
        first, seeds = group[0], [seed for part in group for seed in part.rnd_seeds]
        for part in group[1:]:
            free = ("num_trainable_params", "rnd_seeds")
            other = {k: v for k, v in part.facts().items() if k not in free}
            own = {k: v for k, v in first.facts().items() if k not in free}
            if differ := [k for k in own if own[k] != other[k]]:
                raise UserError(
                    f"{name}: predictions of different {', '.join(differ)} cannot be combined:"
                    f" {own[differ[0]]!r} and {other[differ[0]]!r}."
                )
            if part.predictions.shape[1:] != first.predictions.shape[1:]:
                raise UserError(f"{name}: seeds have predictions of different sizes.")
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{name}: a seed occurs twice ({seeds}). Give each file once.")
        made.append(
            replace(
                first,
                num_trainable_params=float(np.mean([p.num_trainable_params for p in group])),
                rnd_seeds=tuple(seeds),
                predictions=np.concatenate([p.predictions for p in group]),
            )
        )
    return made


def check_submission(
    found: Sequence[Predictions], sets: Mapping[str, ElevaterSet] = ELEVATER
) -> list[str]:
    """Refuse what the leaderboard would; the names of sets that are missing.

    Args:
        found: one record a set.
        sets: of the leaderboard, or of a registry.
    """
    known = {entry.registered: entry for entry in sets.values()}
    if not found:
        raise UserError("There are no predictions to submit.")
    shots = sorted({record.n_shot for record in found})
    if len(shots) > 1:
        raise UserError(f"A submission is of one number of shots, got {shots}.")
    for record in found:
        name = record.dataset_name
        if name not in known:
            raise UserError(f"ELEVATER has no set {name!r}.{nearest(name, known)}")
        _check_rows(record, known[name])
    there = {record.dataset_name for record in found}
    return [name for name in known if name not in there and name != "imagenet-1k"]


def _check_rows(record: Predictions, entry: ElevaterSet) -> None:
    name, rows = record.dataset_name, record.predictions
    seeds = FEW_SEEDS if record.n_shot > 0 else (0,)
    wanted = (len(seeds), entry.test, entry.classes)
    if rows.shape != wanted:
        raise UserError(
            f"{name}: predictions must be [seeds, samples, classes] = {list(wanted)}, got"
            f" {list(rows.shape)}."
        )
    if sorted(record.rnd_seeds) != sorted(seeds):
        raise UserError(f"{name}: seeds must be {list(seeds)}, got {list(record.rnd_seeds)}.")
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1 + 1e-6:
        raise UserError(f"{name}: predictions must be probabilities between 0 and 1.")
    off = np.abs(rows.sum(-1, dtype=np.float64) - 1).max()
    if not entry.multi_label and off > 1e-3:
        raise UserError(f"{name}: a sample's probabilities must sum to 1; they are off by {off:g}.")


def submission_text(found: Sequence[Predictions]) -> Iterator[str]:
    """The toolkit's JSON, piece by piece: floats rounded to six decimals."""
    yield '{"data": ['
    for k, record in enumerate(found):
        yield ("" if k == 0 else ", ") + json.dumps(record.facts())[:-1] + ', "predictions": ['
        for s, seed in enumerate(record.predictions):
            yield "[" if s == 0 else ", ["
            for n, row in enumerate(seed):
                yield ("" if n == 0 else ", ") + json.dumps([round(v, 6) for v in row.tolist()])
            yield "]"
        yield "]}"
    yield "]}"


def write_submission(found: Sequence[Predictions], path: Path | str) -> None:
    """Write the zip, whole or absent, the same bytes for the same predictions."""
    info = zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0))
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
    with (
        whole_file(path) as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open(info, "w", force_zip64=True) as member,
    ):
        for text in submission_text(found):
            member.write(text.encode())


def submit(
    paths: Iterable[Path | str],
    out: Path | str,
    task: str = "",
    sets: Mapping[str, ElevaterSet] = ELEVATER,
) -> list[str]:
    """Combine predictions, check them, write the zip; the names of sets that are missing.

    Sets are in the order of their names, seeds in theirs.
    """
    parts = [read_predictions(path) for path in find_predictions(paths, task)]
    parts.sort(key=lambda part: (part.dataset_name, part.rnd_seeds))
    found = combine(parts)
    lost = check_submission(found, sets)
    write_submission(found, out)
    return lost
