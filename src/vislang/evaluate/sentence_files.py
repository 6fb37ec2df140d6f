"""SentEval's files, read as they are: STS12-16, STS-B, SICK, and the classification tasks.

Folders are found by name wherever they lie below the root (`STS/STS12-en-test`, `downstream/...`),
in a folder or in a zip archive.
"""

from __future__ import annotations

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.sentence_splits import PROBING, mrpc, probing, snli, sst, trec
from vislang.evaluate.sentence_tree import (
    Part,
    Task,
    Tree,
    class_of,
    clean,
    score_of,
    split_files,
)

YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")
RANKED = (*YEARS, "STSBenchmark", "SICKRelatedness")
# task -> (folder, files of class 0 and 1)
BY_CLASS = {
    "MR": ("MR", "rt-polarity.neg", "rt-polarity.pos"),
    "CR": ("CR", "custrev.neg", "custrev.pos"),
    "SUBJ": ("SUBJ", "subj.subjective", "subj.objective"),
    "MPQA": ("MPQA", "mpqa.neg", "mpqa.pos"),
}
# SentEval's ten transfer tasks, without the two that are judged by correlation
TRANSFER = (*BY_CLASS, "SST2", "SST5", "TREC", "MRPC", "SICKEntailment", "SNLI")
CLASSIFIED = (*TRANSFER, *PROBING)


def read_task(tree: Tree, name: str) -> Task | None:
    """One task, or None where its files are not there."""
    tree.latin.clear()
    tree.lacks.clear()
    if name in YEARS:
        task = _year(tree, name)
    elif name in BY_CLASS:
        task = _by_class(tree, name)
    else:
        readers = {
            "STSBenchmark": _sts_benchmark, "SICKRelatedness": _sick, "SICKEntailment": _sick,
            "SST2": sst, "SST5": sst, "TREC": trec, "MRPC": mrpc, "SNLI": snli,
        } | dict.fromkeys(PROBING, probing)  # fmt: skip
        task = readers[name](tree, name)
    if task is not None and tree.latin:
        files = ", ".join(sorted(f.rpartition("/")[2] for f in tree.latin))
        task.notes.append(f"{name}: {files} are not UTF-8 and were read as latin-1.")
    return task


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
            left.append(clean(sentences[0]))
            right.append(clean(sentences[1]))
            gold.append(score_of(score, golds[key], line))
        if len(gold) < len(pairs):
            notes.append(f"{name} {subset}: {len(pairs) - len(gold)} pairs without a score.")
        if len(gold) >= 2:
            parts[subset] = Part(left, right, np.array(gold))
        else:
            notes.append(f"{name} {subset}: fewer than two pairs have a score: left out.")
    return Task(name, parts, notes) if parts else None


def _sts_benchmark(tree: Tree, name: str) -> Task | None:
    """Columns genre, file, year, id, score, s1, s2; tabs, no quoting."""
    ends = {s: (f"STSBenchmark/sts-{s}.csv",) for s in ("train", "dev", "test")}
    files = split_files(tree, ends)
    if files is None:
        return None
    parts = {}
    for split, file in files.items():
        rows = [(i, line.split("\t")) for i, line in enumerate(tree.lines(file), 1) if line]
        short = next((i for i, row in rows if len(row) < 7), None)
        if short is not None:
            raise UserError(f"{file}, line {short}: expected seven columns divided by tabs.")
        gold = np.array([score_of(row[4], file, i) for i, row in rows])
        parts[split] = Part([clean(r[5]) for _, r in rows], [clean(r[6]) for _, r in rows], gold)
    return Task(name, parts)


def _sick(tree: Tree, name: str) -> Task | None:
    """Header, then pair_ID, A, B, relatedness, entailment."""
    ends = {"train": "train", "dev": "trial", "test": "test_annotated"}
    files = split_files(tree, {s: (f"SICK/SICK_{e}.txt",) for s, e in ends.items()})
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
            left.append(clean(cells[1]))
            right.append(clean(cells[2]))
            if name == "SICKRelatedness":
                gold.append(score_of(cells[3], file, line))
            else:
                gold.append(class_of(cells[4].strip(), classes, file, line))
        parts[split] = Part(left, right, np.array(gold))
    return Task(name, parts)


def _by_class(tree: Tree, name: str) -> Task | None:
    """A file of sentences for each of two classes, one a line."""
    folder, *ends = BY_CLASS[name]
    files = [tree.find(f"{folder}/{end}") for end in ends]
    texts: list[str] = []
    gold: list[int] = []
    blank = 0
    for label, file in enumerate(files):
        if file is None:
            return None
        whole = tree.lines(file)
        lines = [clean(line) for line in whole if line.strip()]
        blank += len(whole) - len(lines)
        texts += lines
        gold += [label] * len(lines)
    notes = [f"{name}: {blank} blank lines left out."] if blank else []
    return Task(name, {"all": Part(texts, [], np.array(gold))}, notes)
