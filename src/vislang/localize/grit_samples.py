"""GRIT's samples, and the distorted pictures that some of them ask for.

Gupta et al. 2022, arXiv:2204.13653.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.decode import decode
from vislang.errors import UserError
from vislang.files import read_json, whole_file
from vislang.metrics import grit as measure

TASKS = tuple(measure.TASKS)
BOXED = ("localization", "refexp")
# Where a task's pictures come from that nobody trains it on; the others are its usual source.
NEW_SOURCES = (
    "nyuv2", "open_images", "visual_genome", "refclef", "saiapr", "construction", "blended_mvs",
    "dtu",
)  # fmt: skip


@dataclass(frozen=True)
class GritSample:
    """One sample: what is asked of which picture, and the truth where it is known.

    Args:
        id: example_id.
        image: path below the folder of pictures.
        task: one of TASKS.
        query: what is asked; empty where the task asks nothing.
        truth: {"bboxes": ...} and so on, or None.
        source: such as "nyuv2_loc"; empty: the first folder of the picture's path.
        new_concept: whether the training task did not have its concept.
        groups: groups of concepts that its query belongs to.
    """

    id: str
    image: str
    task: str
    query: str
    truth: Mapping[str, Any] | None = None
    source: str = ""
    new_concept: bool = False
    groups: tuple[str, ...] = ()

    @property
    def new_source(self) -> bool:
        """Whether the picture comes from one of NEW_SOURCES.

        >>> GritSample("a", "distorted/localization/nyuv2/7.jpg", "localization", "bed").new_source
        True
        """
        parts = Path(self.image).parts
        place = parts[parts.index("distorted") + 2 :] if "distorted" in parts else parts
        return (self.source or "/".join(place)).startswith(NEW_SOURCES)


def read_samples(file: Path | str, tasks: Sequence[str] = BOXED) -> list[GritSample]:
    """Samples of GRIT/samples/SUBSET/TASK.json, or of the released examples (task -> list).

    Samples of tasks not asked for are left out; ids must be unique.
    """
    body = read_json(file)
    rows: list[Mapping[str, Any]]
    if isinstance(body, Mapping):  # released examples: they have no ids and know the truth
        if any(
            not isinstance(r, Mapping) or "image_path" not in r.get("input", ())
            for some in body.values()
            for r in (some if isinstance(some, list) else [some])
        ):
            raise UserError(
                f"{file} has neither form of GRIT's samples: a list of {{example_id, image_id,"
                " task_name, task_query}, or task -> list of {input: {image_path, task_query}}."
            )
        rows = [
            {"example_id": f"{task}_{k}", "task_name": task, "image_id": r["input"]["image_path"],
             "task_query": r["input"].get("task_query"), "gt": r.get("gt"), "src": r.get("src", "")}
            for task, some in body.items() for k, r in enumerate(some)
        ]  # fmt: skip
    else:
        rows = body
    out: dict[str, GritSample] = {}
    for place, row in enumerate(rows):
        try:
            task, name = str(row["task_name"]), str(row["example_id"])
            image = str(row["image_id"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}, sample {place}: {error!r}. A sample has example_id, image_id, task_name."
            ) from error
        if task not in TASKS:
            raise UserError(f"{file}: no task is called {task!r}. Known: {', '.join(TASKS)}.")
        if task not in tasks:
            continue
        if name in out:
            raise UserError(f"{file}: the example_id {name!r} occurs twice.")
        out[name] = GritSample(
            name, image, task, str(row.get("task_query") or ""), row.get("gt"),
            str(row.get("src", "")), bool(row.get("new_concept")),
            tuple(row.get("concept_groups") or ()),
        )  # fmt: skip
    if not out:
        raise UserError(f"{file} holds no sample of {', '.join(tasks)}.")
    return list(out.values())


def distort(image: np.ndarray, delta: np.ndarray, out_of_range: str = "wrap") -> np.ndarray:
    """image + delta as uint8: wrap (as GRIT generates its distorted pictures) or clip."""
    if image.shape != delta.shape:
        raise UserError(f"The delta is {list(delta.shape)}, the picture {list(image.shape)}.")
    if out_of_range not in ("wrap", "clip"):
        raise UserError(f"out_of_range must be wrap or clip, got {out_of_range!r}.")
    wide = np.float64 if np.issubdtype(delta.dtype, np.floating) else np.int64
    total = image.astype(wide) + delta.astype(wide)
    if out_of_range == "clip":
        return np.clip(total, 0, 255).astype(np.uint8)
    return np.trunc(total).astype(np.int64).astype(np.uint8)


def make_distorted(
    root: Path | str, samples: Sequence[GritSample], deltas: Path | str, out_of_range: str = "wrap"
) -> int:
    """Write the distorted pictures of samples whose image lies in distorted/; how many were new.

    Args:
        root: the GRIT folder, pictures in root/images.
        samples: of one task.
        deltas: its dist_deltas_TASK_SUBSET.hdf5: example_id without "_dist" -> array.
        out_of_range: see `distort`.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("GRIT's distortions need the package h5py: pip install h5py.") from error
    from PIL import Image

    made = 0
    images = Path(root) / "images"
    with h5py.File(deltas, "r") as file:
        for sample in samples:
            parts = Path(sample.image).parts
            target = images / sample.image
            if "distorted" not in parts or target.exists():
                continue
            key = sample.id.removesuffix("_dist")
            if key not in file:
                raise UserError(f"{deltas} has no delta for {key!r}.")
            # distorted/<task>/<original path>
            original = images / Path(*parts[parts.index("distorted") + 2 :])
            pixels = distort(decode(original), np.asarray(file[key]), out_of_range)
            kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(target.suffix.lower(), "PNG")
            with whole_file(target) as handle:
                Image.fromarray(pixels).save(handle, kind)
            made += 1
    return made
