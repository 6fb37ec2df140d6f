"""Phrases with boxes: Flickr30k Entities, zero-shot-grounding CSVs, RefCOCO, COCO, GRIT.

Pictures come from a folder or a zip, are found by name and read when they are needed.
n: boxes of a phrase.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from vislang.data.decode import Limits, decode
from vislang.data.sample import BadSample
from vislang.errors import UserError

_TAG = re.compile(r"\[/EN#(\w+)(/\S+) ([^\]]*)\]")


@dataclass(frozen=True)
class Grounded:
    """A phrase and where it is.

    Args:
        id: unique.
        image: name of the picture.
        text: the phrase.
        boxes: n times (x1, y1, x2, y2).
        kind: type of the phrase ("people"), or nothing.
        size: (height, width) of the picture that the boxes were drawn in; None: the picture's own.
    """

    id: str
    image: str
    text: str
    boxes: tuple[tuple[float, float, float, float], ...]
    kind: str = ""
    size: tuple[int, int] | None = None


class Images:
    """Pictures of a folder or a zip, by file name; also by what stands before "_" or the suffix."""

    def __init__(self, place: Path | str, limits: Limits | None = None):
        self.place, self.limits = Path(place), limits or Limits()
        self._zip: zipfile.ZipFile | None = None
        if self.place.is_dir():
            names = [
                str(p.relative_to(self.place)) for p in sorted(self.place.rglob("*")) if p.is_file()
            ]
        elif self.place.is_file() and zipfile.is_zipfile(self.place):
            self._zip = zipfile.ZipFile(self.place)
            names = sorted(i.filename for i in self._zip.infolist() if not i.is_dir())
        else:
            raise UserError(f"Pictures must be a folder or a .zip, {self.place} is neither.")
        self._names: dict[str, str] = {}
        for name in names:
            last = name.rpartition("/")[2]
            stem = last.rpartition(".")[0] or last
            for key in (name, last, stem, stem.partition("_")[0]):
                self._names.setdefault(key, name)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> str | None:
        last = name.rpartition("/")[2]
        for key in (name, last, last.rpartition(".")[0]):
            if key in self._names:
                return self._names[key]
        return None

    def read(self, name: str) -> np.ndarray:
        """The picture as uint8 [H, W, 3], upright; BadSample says why there is none."""
        found = self._find(name)
        if found is None:
            raise BadSample(name, "no image: no file has this name", str(self.place))
        if self._zip is None:
            return decode(self.place / found, self.limits)
        info = self._zip.getinfo(found)
        if info.file_size > self.limits.max_bytes:
            raise BadSample(name, f"too many bytes: {info.file_size:,}", str(self.place))
        return decode(self._zip.read(info), self.limits)


def flickr_entities(
    annotations: Path | str, images: Images, kinds: Sequence[str] = ()
) -> list[Grounded]:
    """Flickr30k Entities (a folder or .tar.gz with Annotations/ and Sentences/), pictures there.

    Entities without a box and those that are not visual (chain 0) are left out; a phrase that
    occurs twice for one entity of a picture counts once.
    """
    out: list[Grounded] = []
    files = _entity_files(Path(annotations))
    for name in sorted(files):
        sentences, drawn = files[name].get("txt"), files[name].get("xml")
        if sentences is None or drawn is None or name not in images:
            continue
        size, boxes = _entity_boxes(drawn)
        seen = set()
        for chain, types, words in _TAG.findall(sentences.decode("utf-8")):
            types = types.strip("/").split("/")
            key = (chain, words)
            if chain == "0" or not boxes.get(chain) or key in seen:
                continue
            if kinds and types[0] not in kinds:
                continue
            seen.add(key)
            out.append(
                Grounded(
                    f"{name}/{chain}/{len(seen)}", name, words, tuple(boxes[chain]), types[0], size
                )
            )
    return _some(out, annotations)


def _entity_files(place: Path) -> Mapping[str, Mapping[str, bytes]]:
    files: dict[str, dict[str, bytes]] = defaultdict(dict)
    if place.is_dir():
        for file in [*place.glob("Annotations/*.xml"), *place.glob("Sentences/*.txt")]:
            files[file.stem][file.suffix[1:]] = file.read_bytes()
    elif place.is_file():
        with tarfile.open(place) as tar:
            for member in tar:
                part = Path(member.name)
                wanted = part.parent.name in ("Annotations", "Sentences")
                if wanted and member.isfile() and (handle := tar.extractfile(member)):
                    files[part.stem][part.suffix[1:]] = handle.read()
    else:
        raise UserError(f"{place} is neither a folder nor an archive of Flickr30k Entities.")
    return files


def _entity_boxes(xml: bytes) -> tuple[tuple[int, int], dict[str, list]]:
    if b"<!ENTITY" in xml or b"<!DOCTYPE" in xml:
        raise UserError("An annotation declares XML entities, which no annotation needs.")
    root = ElementTree.fromstring(xml)
    size = (int(root.findtext("size/height", "0")), int(root.findtext("size/width", "0")))
    boxes: dict[str, list] = defaultdict(list)
    for thing in root.iter("object"):
        found = thing.find("bndbox")
        if found is None:
            continue
        box = tuple(float(found.findtext(k, "nan")) for k in ("xmin", "ymin", "xmax", "ymax"))
        for name in thing.iter("name"):
            boxes[str(name.text)].append(box)
    return size, boxes


def zsg_csv(file: Path | str) -> list[Grounded]:
    """A CSV of zero-shot grounding.

    Columns img_id, bbox, query (Flickr), or image_fpath, bbox, phrase (Visual Genome). Of several
    queries of a row the first counts, as in its evaluator.
    """
    out = []
    with open(file, newline="", encoding="utf-8") as handle:
        for place, row in enumerate(csv.DictReader(handle)):
            try:
                if "img_id" in row:
                    name, query = row["img_id"].strip(), row["query"].strip()
                    name = name if name.endswith(".jpg") else f"{name}.jpg"
                else:
                    name, query = row["image_fpath"].strip(), row["phrase"].strip()
                box = ast.literal_eval(row["bbox"])
                texts = ast.literal_eval(query) if query.startswith("[") else [query]
                x1, y1, x2, y2 = (float(v) for v in box)
                out.append(Grounded(str(place), name, str(texts[0]).strip(), ((x1, y1, x2, y2),)))
            except (KeyError, ValueError, SyntaxError, TypeError, IndexError) as error:
                raise UserError(
                    f"{file}, row {place + 2}: {error!r}. Expected the columns img_id, bbox, query"
                    " or image_fpath, bbox, phrase with bbox as [x1, y1, x2, y2]."
                ) from error
    return _some(out, file)


def refcoco_json(file: Path | str, split: str = "") -> list[Grounded]:
    """Referring expressions: the refer project's refs as JSON, or COCO images with a caption each.

    Either {"refs": [{ref_id, file_name, bbox | ann_id, sentences: [{sent}], split}], "annotations"}
    or {"images": [{id, file_name, caption}], "annotations": [{image_id, bbox}]}; boxes x y w h.
    """
    body = _json(file)
    out = []
    if isinstance(body, Mapping) and "refs" in body:
        boxes = {a["id"]: a["bbox"] for a in body.get("annotations", [])}
        for ref in body["refs"]:
            if split and ref.get("split") != split:
                continue
            box = ref.get("bbox") or boxes.get(ref.get("ann_id"))
            if box is None:
                raise UserError(f"{file}: the ref {ref.get('ref_id')!r} has no box.")
            for place, said in enumerate(ref["sentences"]):
                text = said["sent"] if isinstance(said, Mapping) else said
                out.append(
                    Grounded(f"{ref['ref_id']}/{place}", ref["file_name"], text, _xywh([box]))
                )
    elif isinstance(body, Mapping) and {"images", "annotations"} <= set(body):
        boxes = defaultdict(list)
        for a in body["annotations"]:
            boxes[a["image_id"]].append(a["bbox"])
        for image in body["images"]:
            if image.get("caption") and boxes[image["id"]]:
                out.append(
                    Grounded(
                        str(image["id"]),
                        image["file_name"],
                        image["caption"],
                        _xywh(boxes[image["id"]]),
                    )
                )
    return _some(out, file)


def coco_phrases(file: Path | str) -> list[Grounded]:
    """COCO instances as phrases: each category of each picture with all of its boxes, no crowds."""
    body = _json(file)
    try:
        names = {c["id"]: c["name"] for c in body["categories"]}
        images = {i["id"]: i for i in body["images"]}
        boxes = defaultdict(list)
        for a in body["annotations"]:
            if not a.get("iscrowd"):
                boxes[a["image_id"], a["category_id"]].append(a["bbox"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not a COCO instances file: {error!r}.") from error
    return _some(
        [
            Grounded(f"{i}/{c}", images[i]["file_name"], names[c], _xywh(found), names[c])
            for (i, c), found in sorted(boxes.items())
        ],
        file,
    )


def _json(file: Path | str) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not JSON: {error}.") from error


def _xywh(boxes: Iterable[Sequence[float]]) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in boxes)


def _some(found: list[Grounded], place: object) -> list[Grounded]:
    if not found:
        raise UserError(f"{place} holds no phrase with a box and a picture. Check both places.")
    ids = [g.id for g in found]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"{place}: the id {twice!r} occurs twice. Give each phrase its own.")
    return found


FORMATS = ("flickr", "zsg", "refcoco", "coco", "grit")


def read_phrases(kind: str, annotations: Path | str, images: Images) -> list[Grounded]:
    """Phrases in one of FORMATS."""
    if kind == "flickr":
        return flickr_entities(annotations, images)
    if kind == "grit":
        from vislang.localize.grit_samples import read_samples

        return _some(
            [
                Grounded(s.id, s.image, s.query, tuple(map(tuple, s.truth["bboxes"])), s.task)
                for s in read_samples(annotations)
                if s.truth and s.truth.get("bboxes")
            ],
            annotations,
        )
    readers = {"zsg": zsg_csv, "refcoco": refcoco_json, "coco": coco_phrases}
    if kind not in readers:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}.")
    return readers[kind](annotations)


def by_image(phrases: Iterable[Grounded]) -> Iterator[tuple[str, list[Grounded]]]:
    """The phrases of each picture together, pictures in the order of their first phrase."""
    groups: dict[str, list[Grounded]] = defaultdict(list)
    for phrase in phrases:
        groups[phrase.image].append(phrase)
    yield from groups.items()
