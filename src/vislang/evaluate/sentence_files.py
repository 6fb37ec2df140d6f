"""SentEval's files, read as they are: STS12-16, STS-B, SICK, and the classification tasks.

Folders are found by name wherever they lie below the root (`STS/STS12-en-test`, `downstream/...`),
in a folder or in a zip archive.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")
RANKED = (*YEARS, "STSBenchmark", "SICKRelatedness")
# task -> (folder, files of class 0 and 1)
BY_CLASS = {
    "MR": ("MR", "rt-polarity.neg", "rt-polarity.pos"),
    "CR": ("CR", "custrev.neg", "custrev.pos"),
    "SUBJ": ("SUBJ", "subj.subjective", "subj.objective"),
    "MPQA": ("MPQA", "mpqa.neg", "mpqa.pos"),
}
CLASSIFIED = (*BY_CLASS, "SST2", "SST5", "TREC", "MRPC", "SICKEntailment")


@dataclass(frozen=True)
class Part:
    """Sentences of one split: one or two a row, with a score or a class."""

    left: list[str]
    right: list[str]  # empty where a row is one sentence
    gold: Float[np.ndarray, " n"] | Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Task:
    """One task: its parts by name (a year's sets; train, dev, test; or all), and what was odd."""

    name: str
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)


class Tree:
    """Files below a folder or in a zip, found by the end of their path."""

    def __init__(self, root: Path):
        self.root, self.latin = root, set()
        if root.is_dir():
            archives = sorted(root.glob("*.zip"))
            files = [f for f in sorted(root.rglob("*")) if f.is_file()]
            if archives and len(files) < 20 and not any(d.is_dir() for d in root.iterdir()):
                root = archives[0]  # a folder that holds the archive only
            else:
                self.archive, self.names = None, [f.relative_to(root).as_posix() for f in files]
                return
        try:
            self.archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{root} is neither a folder nor a zip archive: {error}.") from error
        self.names = sorted(self.archive.namelist())

    def find(self, *ends: str) -> str | None:
        """The first file whose path ends in one of `ends`, whole parts of the path compared."""
        for end in ends:
            for name in self.names:
                if f"/{name}".endswith(f"/{end}"):
                    return name
        return None

    def folder(self, name: str) -> list[str]:
        """The files directly in the folder called `name`."""
        return [n for n in self.names if n.rpartition("/")[0].rpartition("/")[2] == name]

    def lines(self, name: str) -> list[str]:
        """Lines of a text file: UTF-8, or latin-1 where it is none (counted in `latin`)."""
        raw = self.archive.read(name) if self.archive else (self.root / name).read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.latin.add(name)
            text = raw.decode("latin-1")
        # Not splitlines: sentences hold characters that it takes for line ends.
        found = text.replace("\r\n", "\n").split("\n")
        return found[:-1] if found and not found[-1] else found


def read_task(tree: Tree, name: str) -> Task | None:
    """One task, or None where its files are not there."""
    tree.latin.clear()
    if name in YEARS:
        task = _year(tree, name)
    elif name in BY_CLASS:
        task = _by_class(tree, name)
    else:
        readers = {
            "STSBenchmark": _sts_benchmark, "SICKRelatedness": _sick, "SICKEntailment": _sick,
            "SST2": _sst, "SST5": _sst, "TREC": _trec, "MRPC": _mrpc,
        }  # fmt: skip
        task = readers[name](tree, name)
    if task is not None and tree.latin:
        files = ", ".join(sorted(f.rpartition("/")[2] for f in tree.latin))
        task.notes.append(f"{name}: {files} are not UTF-8 and were read as latin-1.")
    return task


def _text(sentence: str) -> str:
    return " ".join(sentence.split()) or "."


def _number(text: str, file: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{file}, line {line}: expected a score, got {text[:40]!r}.")
    return value


def _year(tree: Tree, name: str) -> Task | None:
    """STS.input.<set>.txt beside STS.gs.<set>.txt; a blank gold line is a pair without a score."""
    files = tree.folder(f"{name}-en-test")
    inputs = {f.rpartition("STS.input.")[2]: f for f in files if "STS.input." in f}
    golds = {f.rpartition("STS.gs.")[2]: f for f in files if "STS.gs." in f}
    parts, notes = {}, []
    for key in sorted(golds):
        subset = key.removesuffix(".txt")
        if subset == "ALL":
            continue
        if key not in inputs:
            notes.append(f"{name}: the set {subset} has scores but no sentences: left out.")
            continue
        pairs, scores = tree.lines(inputs[key]), tree.lines(golds[key])
        scores += [""] * (len(pairs) - len(scores) if len(pairs) - len(scores) == 1 else 0)
        if len(pairs) != len(scores):
            raise UserError(
                f"{inputs[key]} has {len(pairs)} lines, but {golds[key]} has {len(scores)}:"
                " each pair needs its line of scores (it may be blank)."
            )
        left, right, gold = [], [], []
        for line, (pair, score) in enumerate(zip(pairs, scores), 1):
            if not score.strip():
                continue
            sentences = pair.split("\t")
            if len(sentences) < 2:
                raise UserError(f"{inputs[key]}, line {line}: expected two sentences and a tab.")
            left.append(_text(sentences[0]))
            right.append(_text(sentences[1]))
            gold.append(_number(score, golds[key], line))
        if len(gold) < len(pairs):
            notes.append(f"{name} {subset}: {len(pairs) - len(gold)} pairs without a score.")
        if len(gold) >= 2:
            parts[subset] = Part(left, right, np.array(gold))
    return Task(name, parts, notes) if parts else None


def _splits(tree: Tree, files: dict[str, tuple[str, ...]]) -> dict[str, str] | None:
    found = {split: tree.find(*ends) for split, ends in files.items()}
    there = {split: name for split, name in found.items() if name is not None}
    return there if len(there) == len(files) else None


def _sts_benchmark(tree: Tree, name: str) -> Task | None:
    """Columns genre, file, year, id, score, s1, s2; tabs, no quoting."""
    ends = {s: (f"STSBenchmark/sts-{s}.csv",) for s in ("train", "dev", "test")}
    files = _splits(tree, ends)
    if files is None:
        return None
    parts = {}
    for split, file in files.items():
        rows = [(i, line.split("\t")) for i, line in enumerate(tree.lines(file), 1) if line]
        short = next((i for i, row in rows if len(row) < 7), None)
        if short is not None:
            raise UserError(f"{file}, line {short}: expected seven columns divided by tabs.")
        gold = np.array([_number(row[4], file, i) for i, row in rows])
        parts[split] = Part([_text(r[5]) for _, r in rows], [_text(r[6]) for _, r in rows], gold)
    return Task(name, parts)


def _sick(tree: Tree, name: str) -> Task | None:
    """Header, then pair_ID, A, B, relatedness, entailment."""
    ends = {"train": "train", "dev": "trial", "test": "test_annotated"}
    files = _splits(tree, {s: (f"SICK/SICK_{e}.txt",) for s, e in ends.items()})
    if files is None:
        return None
    classes = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    parts = {}
    for split, file in files.items():
        left, right, gold = [], [], []
        for line, row in enumerate(tree.lines(file)[1:], 2):
            cells = row.split("\t")
            if len(cells) < 5:
                raise UserError(f"{file}, line {line}: expected five columns divided by tabs.")
            left.append(_text(cells[1]))
            right.append(_text(cells[2]))
            if name == "SICKRelatedness":
                gold.append(_number(cells[3], file, line))
            else:
                gold.append(_class_of(cells[4].strip(), classes, file, line))
        parts[split] = Part(left, right, np.array(gold))
    return Task(name, parts)


def _class_of(label: str, classes: tuple[str, ...], file: str, line: int) -> int:
    if label not in classes:
        raise UserError(f"{file}, line {line}: {label!r} is none of {', '.join(classes)}.")
    return classes.index(label)


def _by_class(tree: Tree, name: str) -> Task | None:
    """A file of sentences for each of two classes, one a line."""
    folder, *ends = BY_CLASS[name]
    files = [tree.find(f"{folder}/{end}") for end in ends]
    texts: list[str] = []
    gold: list[int] = []
    for label, file in enumerate(files):
        if file is None:
            return None
        lines = [_text(line) for line in tree.lines(file) if line.strip()]
        texts += lines
        gold += [label] * len(lines)
    return Task(name, {"all": Part(texts, [], np.array(gold))})


def _sst(tree: Tree, name: str) -> Task | None:
    """binary: sentence, tab, label; fine: label, space, sentence."""
    kind = "binary" if name == "SST2" else "fine"
    names = {s: (f"SST/{kind}/sentiment-{s}",) for s in ("train", "dev", "test")}
    files = _splits(tree, names)
    if files is None:
        return None
    classes = ("0", "1") if name == "SST2" else ("0", "1", "2", "3", "4")
    parts = {}
    for split, file in files.items():
        rows = [(i, line) for i, line in enumerate(tree.lines(file), 1) if line.strip()]
        cut = [(i, r.rpartition("\t")[::2] if name == "SST2" else r.partition(" ")[::-2])
               for i, r in rows]  # fmt: skip
        gold = [_class_of(label.strip(), classes, file, i) for i, (_, label) in cut]
        parts[split] = Part([_text(text) for _, (text, _) in cut], [], np.array(gold))
    return Task(name, parts)


def _trec(tree: Tree, name: str) -> Task | None:
    """COARSE:fine question; the six coarse classes."""
    ends = {"train": ("TREC/train_5500.label",), "test": ("TREC/TREC_10.label",)}
    files = _splits(tree, ends)
    if files is None:
        return None
    classes = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    parts = {}
    for split, file in files.items():
        rows = [(i, r.partition(" ")) for i, r in enumerate(tree.lines(file), 1) if r.strip()]
        gold = [_class_of(label.partition(":")[0], classes, file, i) for i, (label, _, _) in rows]
        parts[split] = Part([_text(text) for _, (_, _, text) in rows], [], np.array(gold))
    return Task(name, parts)


def _mrpc(tree: Tree, name: str) -> Task | None:
    """Header, then Quality, two ids, s1, s2. A validation file belongs to the training part."""
    known = {
        "train": ("MRPC/msr_paraphrase_train.txt", "MRPC/msr-para-train.tsv"),
        "test": ("MRPC/msr_paraphrase_test.txt", "MRPC/msr-para-test.tsv"),
    }
    files = _splits(tree, known)
    if files is None:
        return None
    rows: dict[str, list[tuple[int, str, str]]] = {"train": [], "test": []}
    extra = tree.find("MRPC/msr-para-val.tsv")
    for split, file in [*files.items(), *([("train", extra)] if extra else [])]:
        rows[split] += _mrpc_rows(tree, file)
    parts = {
        split: Part([r[1] for r in each], [r[2] for r in each], np.array([r[0] for r in each]))
        for split, each in rows.items()
    }
    return Task(name, parts)


def _mrpc_rows(tree: Tree, file: str) -> Iterator[tuple[int, str, str]]:
    for line, row in enumerate(tree.lines(file)[1:], 2):
        cells = row.split("\t")
        if len(cells) < 5:
            raise UserError(f"{file}, line {line}: expected five columns divided by tabs.")
        yield _class_of(cells[0].strip(), ("0", "1"), file, line), _text(cells[3]), _text(cells[4])
