"""SentEval's classification tasks that come divided into parts: SST, TREC, MRPC, SNLI, probing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.sentence_tree import Part, Task, Tree, class_of, clean, split_files

# Conneau et al. 2018, arXiv:1805.01070: task -> file below probing/
PROBING = {
    "Length": "sentence_length.txt",
    "WordContent": "word_content.txt",
    "Depth": "tree_depth.txt",
    "TopConstituents": "top_constituents.txt",
    "BigramShift": "bigram_shift.txt",
    "Tense": "past_present.txt",
    "SubjNumber": "subj_number.txt",
    "ObjNumber": "obj_number.txt",
    "OddManOut": "odd_man_out.txt",
    "CoordinationInversion": "coordination_inversion.txt",
}


def sst(tree: Tree, name: str) -> Task | None:
    """binary: sentence, tab, label; fine: label, space, sentence."""
    kind = "binary" if name == "SST2" else "fine"
    names = {s: (f"SST/{kind}/sentiment-{s}",) for s in ("train", "dev", "test")}
    files = split_files(tree, names)
    if files is None:
        return None
    classes = ("0", "1") if name == "SST2" else ("0", "1", "2", "3", "4")
    parts = {}
    for split, file in files.items():
        rows = [(i, line) for i, line in enumerate(tree.lines(file), 1) if line.strip()]
        cut = [(i, r.rpartition("\t")[::2] if name == "SST2" else r.partition(" ")[::-2])
               for i, r in rows]  # fmt: skip
        gold = [class_of(label.strip(), classes, file, i) for i, (_, label) in cut]
        parts[split] = Part([clean(text) for _, (text, _) in cut], [], np.array(gold))
    return Task(name, parts)


def trec(tree: Tree, name: str) -> Task | None:
    """COARSE:fine question; the six coarse classes."""
    ends = {"train": ("TREC/train_5500.label",), "test": ("TREC/TREC_10.label",)}
    files = split_files(tree, ends)
    if files is None:
        return None
    classes = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    parts = {}
    for split, file in files.items():
        rows = [(i, r.partition(" ")) for i, r in enumerate(tree.lines(file), 1) if r.strip()]
        gold = [class_of(label.partition(":")[0], classes, file, i) for i, (label, _, _) in rows]
        parts[split] = Part([clean(text) for _, (_, _, text) in rows], [], np.array(gold))
    return Task(name, parts)


def mrpc(tree: Tree, name: str) -> Task | None:
    """Header, then Quality, two ids, s1, s2. A validation file belongs to the training part."""
    known = {
        "train": ("MRPC/msr_paraphrase_train.txt", "MRPC/msr-para-train.tsv"),
        "test": ("MRPC/msr_paraphrase_test.txt", "MRPC/msr-para-test.tsv"),
    }
    files = split_files(tree, known)
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
        yield class_of(cells[0].strip(), ("0", "1"), file, line), clean(cells[3]), clean(cells[4])


def snli(tree: Tree, name: str) -> Task | None:
    """Parallel files s1.train, s2.train, labels.train; dev and test alike."""
    kinds, parts = ("s1", "s2", "labels"), {}
    files = split_files(
        tree, {f"{k}.{s}": (f"SNLI/{k}.{s}",) for s in ("train", "dev", "test") for k in kinds}
    )
    if files is None:
        return None
    for split in ("train", "dev", "test"):
        left, right, labels = (tree.lines(files[f"{kind}.{split}"]) for kind in kinds)
        if not len(left) == len(right) == len(labels):
            raise UserError(
                f"SNLI {split}: s1, s2 and labels have {len(left)}, {len(right)} and"
                f" {len(labels)} lines: they must go together line by line."
            )
        known = ("entailment", "neutral", "contradiction")
        file = files[f"labels.{split}"]
        gold = [class_of(x.strip(), known, file, i) for i, x in enumerate(labels, 1)]
        parts[split] = Part([clean(s) for s in left], [clean(s) for s in right], np.array(gold))
    return Task(name, parts)


def probing(tree: Tree, name: str) -> Task | None:
    """Lines `tr|va|te, label, sentence` divided by tabs; classes are the training labels."""
    file = tree.find(f"probing/{PROBING[name]}", PROBING[name])
    if file is None:
        return None
    called = {"tr": "train", "va": "dev", "te": "test"}
    rows: dict[str, list[tuple[int, str, str]]] = {part: [] for part in called.values()}
    for line, row in enumerate(tree.lines(file), 1):
        cells = row.split("\t")
        if len(cells) < 3 or cells[0] not in called:
            raise UserError(
                f"{file}, line {line}: expected tr, va or te, a label and a sentence, divided by"
                f" tabs, got {row[:60]!r}."
            )
        rows[called[cells[0]]].append((line, cells[1], cells[-1]))
    if empty := [part for part, found in rows.items() if not found]:
        raise UserError(f"{file} has no line of {', '.join(empty)}.")
    classes = tuple(sorted({label for _, label, _ in rows["train"]}))
    parts = {
        split: Part(
            [clean(r[2]) for r in found], [],
            np.array([class_of(label, classes, file, line) for line, label, _ in found]),
        )
        for split, found in rows.items()
    }  # fmt: skip
    return Task(name, parts)
