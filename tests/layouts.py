"""One small real source of each layout, six pictures each, for tests over SOURCES."""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pictures import jpeg
from vislang.data.pairs import PairTable
from vislang.data.sample import BadSample
from vislang.data.sources import open_source
from vislang.errors import UserError

Spec = tuple[str, dict[str, Any]]
CAPTIONS = [f"a picture of thing {i}" for i in range(6)]


def picture(index: int) -> bytes:
    return jpeg(index, 20 + index, 30)


def add_files(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def add_zip(path: Path, files: dict[str, bytes | str], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def add_tar(path: Path, files: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def add_csv(path: Path, rows: list[list[Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def classes() -> dict[str, bytes]:
    return {f"{'cat' if i < 3 else 'great_auk'}/{i}.jpg": picture(i) for i in range(6)}


def digits(_: Path) -> Spec:
    return "digits:test", {}


def folder(root: Path) -> Spec:
    return str(add_files(root / "photos", classes())), {"template": "a photo of a {}."}


def zip_(root: Path) -> Spec:
    return str(add_zip(root / "photos.zip", classes())), {"template": ["a {}.", "one {}"]}


def imagenet(root: Path) -> Spec:
    files = {f"train/n0000000{1 + i // 3}/images/{i}.JPEG": picture(i) for i in range(6)}
    words = "n00000001\tgoldfish, Carassius auratus\nn00000002\tcrane\n"
    add_files(root / "in", files | {"words.txt": words})
    return str(root / "in"), {"split": "train", "template": "a {}"}


def table(root: Path) -> Spec:
    add_files(root / "images", {f"{i}.jpg": picture(i) for i in range(6)})
    rows = [[f"images/{i}.jpg", CAPTIONS[i], "ab"[i % 2]] for i in range(6)]
    return str(add_csv(root / "t.csv", [["image", "caption", "label"], *rows])), {}


def flickr(root: Path) -> Spec:
    add_files(root / "images", {f"{i}.jpg": picture(i) for i in range(6)})
    rows = [[f"{i}.jpg", k, f"{CAPTIONS[i]} {k}", "train"] for i in range(6) for k in range(2)]
    header = ["image", "caption_id", "caption", "split"]
    return str(add_csv(root / "captions.csv", [header, *rows])), {"split": "train"}


def coco(root: Path) -> Spec:
    add_files(root / "val2017", {f"{i:012d}.jpg": picture(i) for i in range(6)})
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in reversed(range(6))]
    notes = [
        {"id": 100 - 7 * i - k, "image_id": i, "caption": f"{CAPTIONS[i]} {k}"}
        for i in range(6) for k in range(2)
    ]  # fmt: skip
    content = json.dumps({"images": images, "annotations": notes})
    add_files(root / "annotations", {"captions_val2017.json": content})
    return str(root / "annotations/captions_val2017.json"), {}


def karpathy(root: Path) -> Spec:
    add_files(root / "val2014", {f"{i:012d}.jpg": picture(i) for i in range(6)})
    entries = [
        {"filepath": "val2014", "filename": f"{i:012d}.jpg", "cocoid": i, "split": "test",
         "sentences": [{"raw": f"{CAPTIONS[i]} {k}"} for k in range(2)]}
        for i in range(6)
    ]  # fmt: skip
    more = [{**entries[0], "filename": "lost.jpg", "split": "train"}]
    content = json.dumps({"images": [*more, *entries], "dataset": "coco"})
    add_files(root, {"dataset_coco.json": content})
    return str(root / "dataset_coco.json"), {"split": "test"}


def redcaps(root: Path) -> Spec:
    files: dict[str, bytes | str] = {}
    for i in range(6):
        stem = f"{'birds' if i < 3 else 'cats'}_2020_000001/id{i}"
        files |= {f"{stem}.jpg": picture(i), f"{stem}.json": json.dumps({"caption": CAPTIONS[i]})}
    return str(add_files(root / "redcaps", files)), {}


def elevater(root: Path) -> Spec:
    """A folder of a known set: pictures in a zip, one with a space in its name."""
    home = root / "classification" / "hateful_memes_20211014"
    files = {f"{'x y' if i == 1 else i}.jpg": picture(i) for i in range(6)}
    add_zip(home / "img.zip", dict(files))
    images = [{"id": i, "file_name": n, "zip_file": "img.zip"} for i, n in enumerate(files)]
    notes = [{"image_id": i, "category_id": 5 + i % 2} for i in range(6)]
    names = [{"id": 6, "name": "b"}, {"id": 5, "name": "a"}]
    content = {"images": images, "annotations": notes, "categories": names}
    add_files(home, {"test_meta.json": json.dumps(content)})
    return str(home), {}


def webdataset(root: Path) -> Spec:
    for shard in range(2):
        files: dict[str, bytes | str] = {}
        for i in range(3 * shard, 3 * shard + 3):
            files |= {f"{i:04d}.jpg": picture(i), f"{i:04d}.txt": CAPTIONS[i]}
            files |= {f"{i:04d}.cls": str(i % 2), f"{i:04d}.json": json.dumps({"key": i})}
        add_tar(root / "shards" / f"s-{shard}.tar", files)
    return str(root / "shards" / "s-{0..1}.tar"), {"classes": ["a", "b"]}


def torchvision(root: Path) -> Spec:
    add_files(root / "tv", classes())
    return "torchvision:ImageFolder", {"root": str(root / "tv")}


def huggingface(root: Path) -> Spec:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    rows = {
        "image": [{"bytes": picture(i), "path": None} for i in range(6)],
        "text": CAPTIONS,
        "label": [i % 2 for i in range(6)],
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(root / "hf"))
    return str(root / "hf"), {}


def mix(root: Path) -> Spec:
    names = ("cat", "dog", "emu", "dog")
    add_files(root / "animals", {f"{name}/{i}.jpg": picture(i) for i, name in enumerate(names)})
    rows = [[f"{i}.jpg", CAPTIONS[i], "bus"] for i in (4, 5)]
    add_files(root / "images", {f"{i}.jpg": picture(i) for i in (4, 5)})
    table = str(add_csv(root / "t.csv", [["image", "caption", "label"], *rows]))
    options = {"template": "a photo of a {}."}
    parts = [
        {"source": str(root / "animals"), "options": options, "weight": 1},
        {
            "source": f"table:{table}",
            "weight": 2.0,
            "options": {"images_root": str(root / "images")},
        },
    ]
    return "mix:", {"parts": parts}


def pure(root: Path) -> Spec:
    _, options = mix(root)
    return "pure:", {"parts": [{**part, "weight": None} for part in options["parts"]]}


def pairs(root: Path) -> Spec:
    spec, options = folder(root)
    source = open_source(spec, **options)
    about = {"source": {"spec": spec, "options": options, "fingerprint": source.fingerprint}}
    shift = [(i + 1) % 6 for i in range(6)]
    PairTable.sorted(range(6), shift, [0.5] * 6, about).write(root / "pairs.parquet")
    return str(root / "pairs.parquet"), {}


LAYOUTS: dict[str, Callable[[Path], Spec]] = {
    "digits": digits, "huggingface": huggingface, "webdataset": webdataset, "flickr": flickr,
    "table": table, "coco": coco, "karpathy": karpathy, "redcaps": redcaps, "elevater": elevater,
    "imagenet": imagenet, "zip": zip_, "folder": folder, "torchvision": torchvision, "pairs": pairs,
    "mix": mix, "pure": pure,
}  # fmt: skip


def message(spec: str | Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_source(spec, **options)
    return str(caught.value)


def samples(spec: str | Path, **options) -> list:
    source = open_source(spec, **options)
    return [source[i] for i in range(len(source))]


def verdict(source, index: int) -> str:
    with pytest.raises(BadSample) as caught:
        source[index]
    return caught.value.reason
