"""ELEVATER's twenty data sets and ImageNet as they lie on disk, and which of them are there.

    ROOT/classification/cifar_10_20211007/train.txt  test.txt  labels.txt  train.zip  val.zip

Li et al. 2022, "ELEVATER: A Benchmark and Toolkit for Evaluating Language-Augmented Visual Models",
arXiv:2204.08790. Sizes, metrics and file names are those of its registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.lookup import nearest

MULTI_LABEL = "11point_mAP"  # the metric of the one set whose pictures have several classes
SPLITS = ("train", "test")


@dataclass(frozen=True)
class ElevaterSet:
    """One data set.

    Args:
        name: as in its configuration files and in our commands.
        registered: as in the registry and in submissions.
        folder: below ROOT.
        classes: how many.
        train, test: how many samples.
        metric: accuracy, mean-per-class, 11point_mAP or roc_auc.
        train_index, test_index: index files.
        archives: zip files of both.
        labels: file of class names; "" where the index (COCO) names them.
        crop: cut the centre out; False squashes the whole picture into the square.
    """

    name: str
    registered: str
    folder: str
    classes: int
    train: int
    test: int
    metric: str = "accuracy"
    train_index: str = "train.txt"
    test_index: str = "test.txt"
    archives: tuple[str, ...] = ("train.zip", "test.zip")
    labels: str = "labels.txt"
    crop: bool = True

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several classes, or none."""
        return self.metric == MULTI_LABEL

    def index(self, split: str) -> str:
        """The index file of a split."""
        return self.train_index if split == "train" else self.test_index

    def size(self, split: str) -> int:
        """Samples of a split."""
        return self.train if split == "train" else self.test


MEAN = "mean-per-class"
_META = ("train_meta.json", "test_meta.json")
_VAL = ("train.zip", "val.zip")


def _coco(index: tuple[str, str], *archives: str) -> dict[str, Any]:
    return {"train_index": index[0], "test_index": index[1], "archives": archives, "labels": ""}


# The leaderboard's average is over all but the last.
ELEVATER: dict[str, ElevaterSet] = {
    found.name: found
    for found in (
        ElevaterSet("caltech101", "caltech-101", "caltech_101_20211007", 102, 3060, 6084, MEAN),
        ElevaterSet("cifar10", "cifar-10", "cifar_10_20211007", 10, 50000, 10000, archives=_VAL),
        ElevaterSet("cifar100", "cifar-100", "cifar100_20200721", 100, 50000, 10000,
                    train_index="train_images.txt", test_index="test_images.txt",
                    archives=("train_images.zip", "test_images.zip")),
        ElevaterSet("country211", "country211", "country211_20210924", 211, 31650, 21100),
        ElevaterSet("dtd", "dtd", "dtd_20211007", 47, 1880, 1880),
        ElevaterSet("eurosat-clip", "eurosat_clip", "eurosat_clip_20210930", 10, 5000, 5000,
                    archives=("2750.zip",)),
        ElevaterSet("fer2013", "fer-2013", "fer_2013_20211008", 7, 28709, 3589),
        ElevaterSet("fgvc-aircraft-2013b", "fgvc-aircraft-2013b-variants102",
                    "fgvc_aircraft_2013b_variants102_20211007", 100, 3334, 3333, MEAN),
        ElevaterSet("flower102", "oxford-flower-102", "oxford_flower_102_20211007", 102, 1020,
                    6149, MEAN),
        ElevaterSet("food101", "food-101", "food_101_20211007", 101, 75750, 25250, archives=_VAL),
        ElevaterSet("gtsrb", "gtsrb", "gtsrb_20210923", 43, 26640, 12630, labels="labelmap.txt",
                    archives=("train.zip", "final_test.zip")),
        ElevaterSet("hateful-memes", "hateful-memes", "hateful_memes_20211014", 2, 8500, 500,
                    "roc_auc", **_coco(_META, "img.zip")),
        ElevaterSet("kitti-distance", "kitti-distance", "kitti_distance_20210923", 4, 6347, 711,
                    crop=False, **_coco(_META, "train_images.zip", "test_images.zip")),
        ElevaterSet("mnist", "mnist", "mnist_20211008", 10, 60000, 10000, archives=_VAL),
        ElevaterSet("oxford-iiit-pets", "oxford-iiit-pets", "oxford_iiit_pets_20211007", 37, 3680,
                    3669, MEAN, archives=_VAL),
        ElevaterSet("patchcamelyon", "patch-camelyon", "patch_camelyon_20211007", 2, 262144, 32768),
        ElevaterSet("rendered-sst2", "rendered-sst2", "rendered_sst2_20210924", 2, 6920, 1821),
        ElevaterSet("resisc45-clip", "resisc45_clip", "resisc45_clip_20210924", 45, 3150, 25200,
                    **_coco(("train.json", "test.json"), "images.zip")),
        ElevaterSet("stanfordcar", "stanford-cars", "stanford_cars_20211007", 196, 8144, 8041,
                    archives=_VAL),
        ElevaterSet("voc2007classification", "voc-2007-classification", "voc2007_20211007", 20,
                    2501, 4952, MULTI_LABEL, "train_ic.txt", "test_ic.txt"),
        ElevaterSet("imagenet-1k", "imagenet-1k", "imagenet_1k_20220105", 1000, 0, 50000,
                    **_coco(("", "val.json"), "val_images.zip")),
    )
}  # fmt: skip
LEADERBOARD = tuple(name for name in ELEVATER if name != "imagenet-1k")


def chosen_sets(names: Sequence[str], registry: Path | str = "") -> list[ElevaterSet]:
    """The sets of these names, of ours or of the registry; "all" is the leaderboard's twenty.

    Args:
        names: names of either kind, or all.
        registry: a JSON file of the toolkit's form whose sets take the place of the built-in ones.

    >>> [found.registered for found in chosen_sets(["cifar10", "voc-2007-classification"])]
    ['cifar-10', 'voc-2007-classification']
    """
    table = read_registry(registry) if registry else ELEVATER
    either = {known: entry for entry in table.values() for known in (entry.name, entry.registered)}
    found: list[ElevaterSet] = []
    for name in names:
        if name == "all":
            found += [e for e in table.values() if registry or e.name in LEADERBOARD]
        elif name in either:
            found.append(either[name])
        else:
            raise UserError(
                f"ELEVATER has no set {name!r}.{nearest(name, either)} Known: all,"
                f" {', '.join(table)}."
            )
    return list({entry.name: entry for entry in found}.values())


def read_registry(path: Path | str) -> dict[str, ElevaterSet]:
    """Sets of a registry file of the toolkit's form, with a `metric` of ours where it has one.

        [{"name": "toy", "root_folder": "classification/toy_1", "labelmap": "labels.txt",
          "num_classes": 4, "metric": "mean-per-class", "type": "classification_multiclass",
          "train": {"index_path": "train.txt", "files_for_local_usage": ["train.zip"],
                    "num_images": 60}, "test": {...}}]

    A set whose name is known keeps its metric where the file gives none.
    """
    from vislang.files import read_json

    if not Path(path).is_file():
        raise UserError(f"There is no registry {path}: give a JSON file, or leave it out.")
    content = read_json(path)
    known = {entry.registered: entry for entry in ELEVATER.values()}
    found = {}
    for record in content if isinstance(content, list) else [content]:
        try:
            made = _from_record(record, known.get(record["name"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: a set needs name, root_folder, num_classes, train and test with"
                f" index_path and num_images; got {error!r} in {str(record)[:120]}."
            ) from error
        found[made.name] = made
    return found


def _from_record(record: Mapping[str, Any], known: ElevaterSet | None) -> ElevaterSet:
    none: Mapping[str, Any] = {"index_path": "", "num_images": 0}
    train, test = record.get("train") or none, record["test"]
    archives = [*train.get("files_for_local_usage", ()), *test.get("files_for_local_usage", ())]
    several = "multilabel" in str(record.get("type", ""))
    usual = known.metric if known else MULTI_LABEL if several else "accuracy"
    folder = str(record["root_folder"]).removeprefix("classification/")
    return ElevaterSet(
        record["name"], record["name"], folder, int(record["num_classes"]),
        int(train.get("num_images", 0)), int(test.get("num_images", 0)),
        record.get("metric", usual), train["index_path"], test["index_path"],
        tuple(dict.fromkeys(archives)), record.get("labelmap", ""),
        bool(record.get("crop", known.crop if known else True)),
    )  # fmt: skip


def set_folder(entry: ElevaterSet, root: Path | str) -> Path:
    """Where a set lies: ROOT/classification/FOLDER, or ROOT/FOLDER."""
    for home in (Path(root) / "classification", Path(root)):
        if (home / entry.folder).is_dir():
            return home / entry.folder
    return Path(root) / "classification" / entry.folder


def missing_files(entry: ElevaterSet, root: Path | str) -> list[str]:
    """Files of a set that are not there; empty where it is whole.

    A folder of the archive's name, without .zip, stands for an archive that was unpacked.
    """
    home = set_folder(entry, root)
    wanted = [entry.train_index, entry.test_index, entry.labels]
    lost = [name for name in wanted if name and not (home / name).is_file()]
    for archive in entry.archives:
        unpacked = home / archive.removesuffix(".zip")
        if not (home / archive).is_file() and not unpacked.is_dir():
            lost.append(archive)
    return lost


def status_table(root: Path | str, registry: Path | str = "") -> dict[str, list]:
    """Which sets lie below ROOT, as a table: set, state, train, test, classes, missing files."""
    if not Path(root).is_dir():
        raise UserError(
            f"There is no folder {root}. ELEVATER's sets lie in ROOT/classification/FOLDER, as"
            " its toolkit left them."
        )
    table = read_registry(registry) if registry else ELEVATER
    rows = []
    for entry in table.values():
        lost = missing_files(entry, root)
        there = set_folder(entry, root).is_dir()
        state = "present" if not lost else "incomplete" if there else "absent"
        what = ", ".join(lost) if there else f"the folder classification/{entry.folder}"
        rows.append([entry.name, state, entry.train, entry.test, entry.classes,
                     what if lost else ""])  # fmt: skip
    columns = ["set", "state", "train samples", "test samples", "classes", "missing"]
    return {"columns": columns, "rows": rows}
