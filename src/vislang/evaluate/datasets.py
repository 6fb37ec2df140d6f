"""The catalogue of data sets on which features are judged: splits, metric, where they may lie.

A data set is looked for below one folder, in this order: `<root>/<name>/<split>` or `<root>/<name>`
in any layout that is recognised (folders of classes, a zip of them, a table, a saved Hugging Face
dataset), then what torchvision left there. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.data.labelled import even_shards
from vislang.data.sample import Sample, Source
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class DataSet:
    """One data set of the catalogue.

    Args:
        name: as in the commands.
        classes: how many.
        metric: accuracy or mean_class_recall.
        train, valid, test: the parts, as a split of the data set or a slice of one
            ("train[5000:10000]", "train[10%:20%]"); without `valid`, a stratified fifth of train.
        torchvision: the class there, and its arguments for each split.
        hub: the dataset on the Hugging Face hub.
        tfds: its name in TensorFlow Datasets, whose splits the original used.
        get: how to get it.
        in_all: whether the name "all" takes it.
        few: whether few-shot episodes are asked of it (5-way ones need 5 classes).
        sources: of a data set of your own: train, valid, test -> {spec, options}.
    """

    name: str
    classes: int
    metric: str = "accuracy"
    train: str = "train"
    valid: str = ""
    test: str = "test"
    torchvision: tuple[str, Mapping[str, Mapping[str, Any]]] | None = None
    hub: str = ""
    tfds: str = ""
    get: str = ""
    in_all: bool = True
    few: bool = True
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _two(name: str, key: str = "split") -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """torchvision's arguments for train and test by `split`, or by `train` True and False."""
    if key == "train":
        return name, {"train": {"train": True}, "test": {"train": False}}
    return name, {split: {"split": split} for split in ("train", "test")}


MEAN = "mean_class_recall"
_VAL = {"train": {"split": "train"}, "valid": {"split": "val"}, "test": {"split": "test"}}

# In the order of El Banani et al. 2023, arXiv:2302.12248; what follows the fifteenth is not in
# "all". Splits and metrics are those of that code.
DATASETS: dict[str, DataSet] = {
    found.name: found
    for found in (
        DataSet("food101", 101, torchvision=_two("Food101"), hub="ethz/food101", tfds="food101"),
        DataSet("cifar10", 10, torchvision=_two("CIFAR10", "train"), hub="uoft-cs/cifar10",
                tfds="cifar10"),
        DataSet("cifar100", 100, torchvision=_two("CIFAR100", "train"), hub="uoft-cs/cifar100",
                tfds="cifar100"),
        DataSet("cub2011", 200, tfds="caltech_birds2011",
                get="CUB_200_2011.tgz of the Caltech-UCSD Birds page, sorted into train/ and test/"
                    " by its train_test_split.txt"),
        DataSet("sun397", 397, tfds="sun397/standard-part1-120k",
                get="SUN397.tar.gz and Partitions.zip of the SUN page (its first standard"
                    " partition), sorted into train/ and test/"),
        DataSet("cars196", 196, torchvision=_two("StanfordCars"), hub="tanganke/stanford_cars",
                tfds="cars196"),
        DataSet("aircraft", 100, MEAN, valid="valid", torchvision=("FGVCAircraft", _VAL)),
        DataSet("dtd", 47, valid="valid", torchvision=("DTD", _VAL), tfds="dtd"),
        DataSet("pets", 37, MEAN, tfds="oxford_iiit_pet", torchvision=(
            "OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}})),
        DataSet("caltech101", 102, MEAN, tfds="caltech101",
                get="caltech101.zip of CaltechDATA; 30 images of each class for train/, the others"
                    " for test/, the background class included"),
        DataSet("flowers", 102, MEAN, valid="valid", torchvision=("Flowers102", _VAL),
                tfds="oxford_flowers102"),
        DataSet("stl10", 10, torchvision=_two("STL10"), tfds="stl10"),
        DataSet("eurosat", 10, train="train[:5000]", valid="train[5000:10000]",
                test="train[10000:15000]", torchvision=("EuroSAT", {"train": {}}), tfds="eurosat"),
        DataSet("resisc45", 45, train="train[:10%]", valid="train[10%:20%]", test="train[20%:]",
                tfds="resisc45", hub="timm/resisc45", get="NWPU-RESISC45.rar of its authors"),
        DataSet("pcam", 2, valid="valid", torchvision=("PCAM", _VAL), tfds="patch_camelyon",
                few=False),
        DataSet("mnist", 10, torchvision=_two("MNIST", "train"), tfds="mnist", in_all=False),
        DataSet("clevr_counts", 8, train="train[:1500]", valid="train[1500:2000]",
                test="valid[:500]", tfds="clevr", in_all=False,
                get="CLEVR_v1.0.zip of its page; folders train/3 ... train/10 by number of"
                    " objects"),
        DataSet("imagenet", 1000, test="valid", in_all=False,
                get="the ILSVRC 2012 archives of image-net.org (an account is needed), as"
                    " train/WNID and val/WNID"),
        DataSet("tiny_imagenet", 200, test="valid", in_all=False,
                get="tiny-imagenet-200.zip of Stanford's CS231n, as train/WNID and val/WNID"),
        DataSet("gtsrb", 43, torchvision=_two("GTSRB"), in_all=False),
        DataSet("svhn", 10, torchvision=_two("SVHN"), in_all=False),
        DataSet("country211", 211, valid="valid", in_all=False, torchvision=(
            "Country211", {s: {"split": s} for s in ("train", "valid", "test")})),
    )
}  # fmt: skip


def chosen(names: Sequence[str]) -> list[DataSet]:
    """The data sets of these names; "all" is the fifteen of the paper.

    >>> [d.name for d in chosen(["dtd", "stl10"])]
    ['dtd', 'stl10']
    """
    found: list[DataSet] = []
    for name in names:
        if name == "all":
            found += [entry for entry in DATASETS.values() if entry.in_all]
        elif name in DATASETS:
            found.append(DATASETS[name])
        elif name.endswith((".yaml", ".yml", ".json")):
            found += read_datasets(name)
        else:
            raise UserError(
                f"No data set is called {name!r}.{nearest(name, DATASETS)}"
                f" Known: all, {', '.join(DATASETS)}. Others: --source and --train_source."
            )
    return list({entry.name: entry for entry in found}.values())


def read_datasets(path: Path | str) -> list[DataSet]:
    """Data sets of your own, from YAML.

        cifar-sample:
          test: {source: data/test.zip, options: {classes: names.txt}}
          train: {source: data/train.zip}         # without it, test is divided
          metric: accuracy                        # or mean_class_recall; `valid` may be named too

    Raises:
        UserError: no such file, no mapping, an unknown key, or no test.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no file of data sets {path}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}.") from error
    found = []
    items: list[tuple[str, Any]] = (
        list(content.items()) if isinstance(content, dict) else [("", "")]
    )
    for name, told in items:
        parts = set(told) if isinstance(told, dict) else set()
        known = {"train", "valid", "test", "metric", "few"}
        sources = {key: told[key] for key in ("train", "valid", "test") if key in parts}
        whole = all(isinstance(s, dict) and "source" in s for s in sources.values())
        if "test" not in parts or not whole or parts - known:
            raise UserError(
                f"{path}: the data set {name!r} must have test: {{source: ..., options: ...}}, and"
                f" may have train, valid, metric and few; got {told!r}."
            )
        metric = told.get("metric", "accuracy")
        valid = "valid" if "valid" in parts else ""
        few = bool(told.get("few", True))
        found.append(DataSet(str(name), 0, metric, valid=valid, few=few, sources=sources))
    return found


class Slice:
    """A run of samples of a source, or several such runs after each other.

    Args:
        parts: (prefix of the ids, source, positions).
        name: of the whole.
    """

    def __init__(self, parts: Sequence[tuple[str, Source, range]], name: str):
        self._parts, self.name = list(parts), name
        first = parts[0][1]
        self.gives, self.classes = first.gives, first.classes
        # Of the parts' own, so cheap: each of them makes its once.
        self.fingerprint = fingerprint([[p, s.fingerprint, str(rows)] for p, s, rows in parts])

    def __len__(self) -> int:
        return sum(len(rows) for _, _, rows in self._parts)

    def __getitem__(self, index: int) -> Sample:
        from dataclasses import replace

        for prefix, source, rows in self._parts:
            if index < len(rows):
                sample = source[rows[index]]
                return replace(sample, id=prefix + sample.id) if prefix else sample
            index -= len(rows)
        raise IndexError(index)

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))


VALIDATION = "valid/"  # ids of validation samples within the training source begin so


@dataclass(frozen=True)
class Opened:
    """A data set that is there.

    Args:
        train: training samples, the validation samples (with their prefix) behind them; None
            where the test samples are to be divided.
        test: what is scored.
        validation: the probe's option of that name.
        how: where the parts were found, in words.
    """

    train: Source | None
    test: Source
    validation: str = "stratified"
    how: dict[str, str] = field(default_factory=dict)


def open_dataset(entry: DataSet, root: Path | str, train: bool = True) -> Opened:
    """The parts of a data set below `root`.

    Args:
        entry: of the catalogue.
        root: folder.
        train: False opens the test samples alone.

    Raises:
        UserError: it is not there, or has another number of classes; says how to get it.
    """
    root = Path(root)
    how: dict[str, str] = {}
    test = _part(entry, "test", root, how)
    if not train or (entry.sources and "train" not in entry.sources):
        _check_classes(entry, test, root)
        return Opened(None, test, "stratified", how)
    taught = _part(entry, "train", root, how)
    validation = "stratified"
    if entry.valid:
        held = _part(entry, "valid", root, how)
        parts = [("", taught, range(len(taught))), (VALIDATION, held, range(len(held)))]
        taught, validation = Slice(parts, f"{entry.name}-train+valid"), f"id:{VALIDATION}"
    _check_classes(entry, taught, root)
    _check_classes(entry, test, root)
    return Opened(taught, test, validation, how)


def _check_classes(entry: DataSet, part: Source, root: Path) -> None:
    if entry.classes and part.classes and len(part.classes) != entry.classes:
        raise UserError(
            f"{entry.name} has {entry.classes} classes, but {len(part.classes)} are below"
            f" {root}: it is another data set, or a part of it. Use --source and"
            " --train_source for it."
        )


def _part(entry: DataSet, part: str, root: Path, how: dict[str, str]) -> Source:
    """The source of train, valid or test, cut as the catalogue says."""
    from vislang.data.sources import open_source

    if entry.sources:
        own = entry.sources[part]
        how[part] = str(own["source"])
        return open_source(str(own["source"]), **(own.get("options") or {}))
    wanted: str = getattr(entry, part)
    split, bracket, rest = wanted.partition("[")
    source, where = _find(entry, split, root)
    how[part] = f"{wanted} of {where}"
    if not bracket:
        return source
    return Slice([("", source, _cut(rest.rstrip("]"), len(source)))], f"{entry.name}-{part}")


def _cut(text: str, n: int) -> range:
    """
    >>> _cut("10%:20%", 50), _cut(":5000", 300)
    (range(5, 10), range(0, 300))
    """

    def place(word: str, default: int) -> int:
        if not word:
            return default
        return int(word[:-1]) * n // 100 if word.endswith("%") else min(int(word), n)

    low, _, high = text.partition(":")
    return range(place(low, 0), place(high, n))


def _find(entry: DataSet, split: str, root: Path) -> tuple[Source, str]:
    """The source of one split, and where it was found."""
    from vislang.data.sources import open_source

    tried = []
    for word in SPLITS[split]:
        for place in (root / entry.name / word, root / f"{entry.name}_{word}.zip"):
            if place.exists():
                return open_source(str(place)), str(place)
    here = root / entry.name
    if here.exists():
        for word in SPLITS[split]:
            try:
                return open_source(str(here), split=word), f"{here}, split {word}"
            except (UserError, TypeError) as error:
                tried.append(str(error))
    if entry.torchvision is not None and split in entry.torchvision[1]:
        name, arguments = entry.torchvision
        for folder in (root, here):
            try:
                options = {"root": str(folder), **arguments[split]}
                return open_source(f"torchvision:{name}", **options), f"torchvision's {name}"
            except UserError as error:
                tried.append(str(error))
    raise UserError(f"{entry.name} is not below {root}: {how_to_get(entry)}")


def how_to_get(entry: DataSet) -> str:
    """A sentence for a data set that is missing."""
    ways = []
    if entry.torchvision is not None:
        ways.append(f"torchvision.datasets.{entry.torchvision[0]}(root=ROOT, download=True)")
    if entry.hub:
        ways.append(f"the hub's {entry.hub}, saved with save_to_disk as ROOT/{entry.name}/SPLIT")
    if entry.tfds:
        ways.append(f"TensorFlow Datasets' {entry.tfds}, its images written to folders of classes")
    if entry.get:
        ways.append(entry.get)
    parts = ", ".join(dict.fromkeys(getattr(entry, p).partition("[")[0] for p in _parts(entry)))
    return (
        f"get it by {'; or '.join(ways)}. Or make folders ROOT/{entry.name}/SPLIT/CLASS/ with the"
        f" splits {parts}."
    )


def _parts(entry: DataSet) -> tuple[str, ...]:
    return ("train", "valid", "test") if entry.valid else ("train", "test")
