"""Evaluations: what must be embedded, and scores as a pure function of embeddings.

    from vislang.evaluate import evaluate
    scores = evaluate("runs/clip-digits", "digits:test", ["zeroshot", "probe"], "runs/clip-digits")

To add one: a file here with a class that has `name`, `requests`, `score` and `settings`, whose
constructor's arguments are its options, and a line in EVALUATIONS.
"""

from vislang.lookup import lazily

EVALUATIONS: dict[str, str] = {
    "zeroshot": "vislang.evaluate.zeroshot:ZeroShot",
    "retrieval": "vislang.evaluate.retrieval:Retrieval",
    "probe": "vislang.evaluate.probe:LinearProbe",
    "knn": "vislang.evaluate.knn:NearestNeighbours",
    "cluster": "vislang.evaluate.cluster:Clustering",
    "fewshot": "vislang.evaluate.fewshot:FewShot",
    "overview": "vislang.evaluate.overview:Overview",
}

# The functions and records load when they are used: `vislang list` must not import torch.
__getattr__ = lazily(
    __name__,
    {
        "evaluate": "vislang.evaluate.runner",
        "build_evaluation": "vislang.evaluate.runner",
        "make_judge": "vislang.evaluate.judge",
        "judge_from_config": "vislang.evaluate.judge",
        "Scores": "vislang.evaluate.scores",
        "read_scores": "vislang.evaluate.scores",
        "write_scores": "vislang.evaluate.scores",
        "Requests": "vislang.evaluate.requests",
        "Embeddings": "vislang.evaluate.requests",
    },
)
