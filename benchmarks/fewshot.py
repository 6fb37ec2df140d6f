"""5,000 few-shot episodes on 2,048-d features: ours beside one episode after the other.

The reference does what the released language-guided code does for each episode (draw classes and
rows, centre, normalise, class means, nearest by Euclidean distance) with the same numpy, in a plain
loop. Both sides get the same episodes; the gate: the same score for every one of them.
"""

import argparse
import json
import statistics
import time
from typing import Any

CLASSES, EACH, WIDTH, EPISODES = 100, 50, 2048, 5000
WAY, SHOT, QUERIES = 5, 5, 6


def make_features(width: int):
    """Features and labels of training and test samples, of overlapping classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    centre = rng.standard_normal((CLASSES, width), dtype=np.float32)
    label = np.repeat(np.arange(CLASSES), EACH)
    parts = [
        centre[label] + 8 * rng.standard_normal((len(label), width), dtype=np.float32)
        for _ in range(2)
    ]
    return parts[0], parts[1], label


def one_by_one(train, test, label, episodes):
    """The originals' loop."""
    import numpy as np

    scores = np.empty(len(episodes.support))
    rows = {c: np.flatnonzero(label == c) for c in range(CLASSES)}
    rng = np.random.default_rng(1)
    for i, (support, query) in enumerate(zip(episodes.support, episodes.query)):
        for c in rng.choice(CLASSES, WAY, replace=False):  # what drawing costs them
            rng.choice(rows[c], SHOT, replace=False), rng.choice(rows[c], QUERIES, replace=False)
        near, asked = train[support], test[query]
        mean = near.reshape(-1, near.shape[-1]).mean(0)
        near, asked = near - mean, asked - mean
        near = near / np.linalg.norm(near, axis=-1, keepdims=True)
        asked = asked / np.linalg.norm(asked, axis=-1, keepdims=True)
        prototype = near.mean(1)
        flat = asked.reshape(-1, asked.shape[-1])
        far = np.linalg.norm(flat[:, None] - prototype[None], axis=-1)
        own = np.repeat(np.arange(WAY), QUERIES)
        scores[i] = (far.argmin(1) == own).mean()
    return scores


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows for benchmarks/run.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    import numpy as np
    from threadpoolctl import threadpool_limits

    from vislang.evaluate.fewshot import draw_episodes, score_episodes

    train, test, label = make_features(options.width)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    with threadpool_limits(1):
        for _ in range(options.repeats):
            start = time.process_time()
            episodes = draw_episodes(label, label, WAY, SHOT, QUERIES, options.episodes, 0)
            ours = score_episodes(train, test, episodes)
            times["ours"].append(time.process_time() - start)
            start = time.process_time()
            theirs = one_by_one(train, test, label, episodes)
            times["theirs"].append(time.process_time() - start)
            if (wrong := np.abs(ours - theirs) > 1e-6).any():
                raise SystemExit(f"{wrong.sum()} episodes differ, so no timing counts")
    ours_s, theirs_s = (statistics.median(times[side]) for side in ("ours", "theirs"))
    rows = [{
        "case": f"{options.episodes:,} episodes, {WAY}-way {SHOT}-shot, width {options.width:,}",
        "value": round(ours_s, 2),
        "unit": "CPU-s",
        "reference": round(theirs_s, 2),
        "reference_is": "one episode after the other",
        "ratio": round(theirs_s / ours_s, 1),
        "target": ">= 20x less",
        "met": theirs_s / ours_s >= 20,
        "accuracy": round(float(ours.mean()), 4),
        "repeats": options.repeats,
    }]  # fmt: skip
    print(json.dumps(rows))
    return rows


if __name__ == "__main__":
    main()
