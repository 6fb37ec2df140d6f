"""SentEval's ten classification tasks on stored sentence embeddings, beside its scikit-learn path.

Both sides follow the same protocol on the same rows: MR, CR, SUBJ, MPQA by 10 outer folds with C
from six values by 10 inner folds each; TREC and MRPC by 10 folds and seven values; SST-2, SST-5,
SICK-E, SNLI by their validation part and six values. SentEval's path is a cold
LogisticRegression for every C and fold, as its `validation.py` does; ours solves them together.

The embeddings are made (width 384, classes that overlap, variance that falls along the axes as
that of MiniLM's does), with the tasks' own numbers of rows and classes. scikit-learn's outer folds
repeat the same work ten times, so of MR, CR, SUBJ and MPQA one is timed and counted ten times; ours
makes all. SNLI's 550,000 rows are a sample of 20,000. `--share 0.1` takes a tenth of all rows.

The gate: the accuracies of both lie within each other's 95 % interval for every task.

    python benchmarks/sentence_tasks.py [--share 1] [--tasks MR,TREC]
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from typing import Any

WIDTH, SEED = 384, 1111
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# task -> (protocol, classes, width of the features in WIDTH, rows of the parts)
TASKS = {
    "MR": ("inner", 2, 1, (10_662,)),
    "CR": ("inner", 2, 1, (3_775,)),
    "SUBJ": ("inner", 2, 1, (10_000,)),
    "MPQA": ("inner", 2, 1, (10_606,)),
    "SST2": ("split", 2, 1, (67_349, 872, 1_821)),
    "SST5": ("split", 5, 1, (8_544, 1_101, 2_210)),
    "TREC": ("folds", 6, 1, (5_452, 500)),
    "MRPC": ("folds", 2, 2, (4_076, 1_725)),
    "SICKEntailment": ("split", 3, 2, (4_500, 500, 4_927)),
    "SNLI": ("split", 3, 4, (20_000, 9_842, 9_824)),
}


def make_task(name: str, share: float):
    """[(features, classes)] of each part."""
    import numpy as np

    _, classes, times, sizes = TASKS[name]
    rng, width = np.random.default_rng(len(name) * 100 + classes), times * WIDTH
    scale = np.arange(1, width + 1, dtype=np.float32) ** np.float32(-0.4)
    centre = rng.standard_normal((classes, width), dtype=np.float32)
    parts = []
    for size in sizes:
        y = np.arange(max(round(size * share), 20 * classes)) % classes
        rng.shuffle(y)
        noise = rng.standard_normal((len(y), width), dtype=np.float32)
        x = (np.float32(0.12) * centre[y] + noise) * scale
        parts.append((x / np.linalg.norm(x, axis=1, keepdims=True), y))
    return parts


def first_fold(x, y):
    """(rows to learn from, rows to answer) of the first of ten outer folds."""
    from sklearn.model_selection import StratifiedKFold

    return next(StratifiedKFold(10, shuffle=True, random_state=SEED).split(x, y))


def ours(name: str, parts) -> tuple[float, int]:
    """vislang.evaluate.sentence_classes: (accuracy, rows answered)."""
    from vislang.evaluate import sentence_classes as classes

    kind = TASKS[name][0]
    if kind == "inner":
        x, y = parts[0]
        found, (_, answer) = classes.by_inner_folds(x, y, inner=10, threads=1), first_fold(x, y)
        return float(found.right[answer].mean()), len(answer)
    elif kind == "folds":
        (x, y), (test, test_y) = parts
        found = classes.by_folds(x, y, test, test_y, threads=1)
    else:
        (x, y), (valid, valid_y), (test, test_y) = parts
        found = classes.by_split(x, y, valid, valid_y, test, test_y, threads=1)
    return found.mean, len(found.right)


def theirs(name: str, parts) -> tuple[float, int]:
    """A LogisticRegression for each C and fold, then one with the best C."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    def fitted(x, y, cost):
        return LogisticRegression(C=cost, random_state=SEED).fit(x, y)

    def search(x, y, grid):
        scores = []
        for cost in grid:
            cut = StratifiedKFold(10, shuffle=True, random_state=SEED)
            scores.append(np.mean([
                fitted(x[a], y[a], cost).score(x[b], y[b]) for a, b in cut.split(x, y)
            ]))  # fmt: skip
        return grid[int(np.argmax(scores))]

    kind = TASKS[name][0]
    six, seven = [2.0**t for t in range(-2, 4)], [2.0**t for t in range(-1, 6)]
    if kind == "split":
        (x, y), (valid, valid_y), (test, test_y) = parts
        fits = [fitted(x, y, cost) for cost in six]
        best = fits[int(np.argmax([fit.score(valid, valid_y) for fit in fits]))]
        return float(best.score(test, test_y)), len(test_y)
    if kind == "inner":
        learn, answer = first_fold(*parts[0])
        x, y = parts[0]
        (x, y), (test, test_y), grid = (x[learn], y[learn]), (x[answer], y[answer]), six
    else:
        (x, y), (test, test_y), grid = *parts, seven
    return float(fitted(x, y, search(x, y, grid)).score(test, test_y)), len(test_y)


def measure(side: str, names: list[str], share: float) -> dict[str, Any]:
    """Processor seconds and accuracy of every task on one side, in this process."""
    import numpy as np

    warnings.filterwarnings("ignore")  # scikit-learn stops at 100 iterations, as SentEval lets it
    score = {"ours": ours, "theirs": theirs}[side]
    rng = np.random.default_rng(0)
    toy = [(rng.standard_normal((60, 8)), np.arange(60) % 2) for _ in range(2)]
    score("MRPC", toy)  # imports belong to nobody
    found: dict[str, Any] = {}
    for name in names:
        parts = make_task(name, share)
        began = time.process_time()
        accuracy, n = score(name, parts)
        # Of the outer folds scikit-learn made one in ten.
        times = 10 if side == "theirs" and TASKS[name][0] == "inner" else 1
        found[name] = {"seconds": times * (time.process_time() - began), "accuracy": accuracy,
                       "n": n}  # fmt: skip
    return found


def run_child(side: str, names: list[str], share: float) -> dict[str, Any]:
    """The same in a child of its own, one thread."""
    command = [sys.executable, __file__, "--side", side, "--share", str(share)]
    done = subprocess.run(
        [*command, "--tasks", ",".join(names)], env=os.environ | dict.fromkeys(POOLS, "1"),
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def check(mine: dict[str, Any], other: dict[str, Any]) -> None:
    """The gate: each accuracy lies within the other's interval."""
    from vislang.metrics.intervals import wilson

    for name, found in mine.items():
        for a, b in ((found, other[name]), (other[name], found)):
            ends = wilson(round(b["accuracy"] * b["n"]), b["n"])
            if not ends.low - 1e-9 <= a["accuracy"] <= ends.high + 1e-9:
                raise SystemExit(f"{name}: accuracies {found} and {other[name]} differ")


def main(share: float = 1.0, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows for benchmarks/run.py: all tasks together, with each task's ratio in the notes."""
    names = names or list(TASKS)
    mine, other = run_child("ours", names, share), run_child("theirs", names, share)
    check(mine, other)
    total = {side: sum(t["seconds"] for t in each.values())
             for side, each in (("ours", mine), ("theirs", other))}  # fmt: skip
    ratio = total["theirs"] / total["ours"]
    rows = "" if share == 1 else f", {share:g} of the rows"
    return [{
        "case": f"SentEval's {len(names)} tasks, width {WIDTH}, its protocol{rows}",
        "value": round(total["ours"], 1), "unit": "CPU-s",
        "reference": round(total["theirs"], 1), "reference_is": "scikit-learn, one fit each",
        "ratio": round(ratio, 2), "target": ">= 5", "met": ratio >= 5,
        "each": {n: round(other[n]["seconds"] / mine[n]["seconds"], 1) for n in names},
        "accuracy": {n: [round(mine[n]["accuracy"], 4), round(other[n]["accuracy"], 4)]
                     for n in names},
        "measured_on": "scikit-learn: one outer fold of ten (MR, CR, SUBJ, MPQA); 20,000 of SNLI",
    }]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--tasks", default="")
    parser.add_argument("--side", default="")
    given = parser.parse_args()
    chosen = [name for name in given.tasks.split(",") if name] or list(TASKS)
    if given.side:
        print(json.dumps(measure(given.side, chosen, given.share)))
    else:
        for line in main(given.share, chosen):
            print(json.dumps(line))
