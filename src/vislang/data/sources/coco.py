"""COCO captions: one JSON with images and any number of captions for each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from vislang.data.grouped import GroupedCaptions
from vislang.data.images import NamedImages, find_images
from vislang.data.patterns import name_of
from vislang.errors import UserError


class CocoCaptions(GroupedCaptions):
    """COCO captions JSON (also .json.gz): images, each with all its captions.

    Images are sorted by their COCO id, captions by theirs. Chen et al. 2015, arXiv:1504.00325.

    Args:
        path: the annotation file.
        images: folder or zip archive with the images; found by itself in the usual places
            beside the file; 'none' for the captions alone.
    """

    def __init__(self, path: str, *, images: str = ""):
        import pyarrow as pa

        from vislang.data.sources import missing_path

        file = Path(path)
        if not file.is_file():
            raise missing_path(file, "annotation file")
        content = _read(file)
        captions: dict[int, list[tuple[int, str]]] = {}
        for note in content["annotations"]:
            # image files of other tasks share the format: a box has no caption
            if "caption" in note:
                captions.setdefault(note["image_id"], []).append(
                    (note.get("id", 0), str(note["caption"]).strip())
                )
        if not captions:
            raise UserError(f"{file} has no captions: are these boxes or keypoints?")
        pictures = sorted(content["images"], key=lambda image: image["id"])
        names = pa.array([image["file_name"] for image in pictures], pa.large_string())
        texts = [[text for _, text in sorted(captions.get(p["id"], ()))] for p in pictures]
        home = None
        if images != "none":
            home = NamedImages(images or find_images(file, names, _folders(file)), names)
        ids = [str(image["id"]) for image in pictures]
        super().__init__(name_of(path), file, ids, home, texts)

    @staticmethod
    def recognises(path: Path) -> bool:
        """A JSON file."""
        return path.is_file() and path.name.lower().endswith((".json", ".json.gz"))


def _folders(file: Path) -> list[str]:
    """captions_val2017.json -> val2017, images/val2017 ..."""
    split = file.name.split(".")[0].rpartition("_")[2]
    return [split, f"images/{split}", "images"]


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
        content = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
        if all(isinstance(content[key], list) for key in ("images", "annotations")):
            return content
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        detail = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{file} is not a COCO captions file ({detail}): expected a JSON object with the"
            " lists 'images' and 'annotations'."
        ) from error
    raise UserError(f"{file} is not a COCO captions file: 'images' or 'annotations' is no list.")
