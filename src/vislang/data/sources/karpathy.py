"""Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vislang.data.grouped import GroupedCaptions
from vislang.data.images import NamedImages, find_images
from vislang.data.patterns import name_of
from vislang.errors import UserError
from vislang.lookup import nearest

_FOLDERS = ("images", "coco2014", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images")


class KarpathyCaptions(GroupedCaptions):
    """Karpathy's JSON of COCO, Flickr8k or Flickr30k: images, each with its sentences and a split.

    The usual splits of retrieval: COCO's test has 5,000 images of val2014, those of Flickr 1,000.
    Images stay in the file's order, sentences too. Karpathy & Fei-Fei 2015, arXiv:1412.2306.

    Args:
        path: the file.
        images: folder or zip archive with the images; found by itself when it lies beside;
            'none' for the captions alone.
        split: train, restval, val or test, or several, as in train+restval; all by default.
    """

    def __init__(self, path: str, *, images: str = "", split: str = ""):
        import pyarrow as pa

        from vislang.data.sources import missing_path

        file = Path(path)
        if not file.is_file():
            raise missing_path(file, "annotation file")
        entries = _of_splits(_read(file), split, file)
        names, texts = [], []
        for number, entry in enumerate(entries, 1):
            try:
                folder = entry.get("filepath") or ""
                names.append(f"{folder}/{entry['filename']}" if folder else entry["filename"])
                texts.append([text for s in entry["sentences"] if (text := s["raw"].strip())])
            except (KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{file}: entry {number} of the split has no file name or sentences ({error})."
                ) from error
        column: pa.Array = pa.array(names, pa.large_string())
        home = None
        if images != "none":
            home = NamedImages(
                Path(images) if images else find_images(file, column, _FOLDERS), column
            )
        super().__init__(name_of(path, split), file, names, home, texts)

    @staticmethod
    def recognises(path: Path) -> bool:
        """A JSON file of one of the three names."""
        return path.is_file() and path.name.lower() in (
            "dataset_coco.json", "dataset_flickr8k.json", "dataset_flickr30k.json",
        )  # fmt: skip


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        images = json.loads(file.read_bytes())["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is not one of Karpathy's files ({error}): expected a JSON object with the"
            " list 'images'."
        ) from error
    if not isinstance(images, list) or not all(isinstance(entry, dict) for entry in images):
        raise UserError(f"{file} is not one of Karpathy's files: 'images' is no list of objects.")
    return images


def _of_splits(entries: list[dict[str, Any]], split: str, file: Path) -> list[dict[str, Any]]:
    there = sorted({str(entry.get("split", "")) for entry in entries})
    wanted = split.split("+") if split else there
    for name in wanted:
        if name not in there:
            raise UserError(
                f"{file} has no split {name!r}.{nearest(name, there)} Splits: {', '.join(there)}."
            )
    return [entry for entry in entries if str(entry.get("split", "")) in wanted]
