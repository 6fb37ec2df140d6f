"""The engine ray on a local cluster of two nodes, started in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curate_parts import add_part, embeddings

HERE = Path(__file__)
# How long a node may take to start: two cores may be busy with other tests.
PATIENCE = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300"}


def test_two_workers_of_a_cluster_score_as_one_process_does(tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'vislang[ray]'")
    for number in range(4):
        rows = embeddings(200, seed=number)
        add_part(tmp_path / "web", "en", number, rows, {"NSFW": ["UNLIKELY"] * 200})
    quiet = PATIENCE | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    child = subprocess.run(
        [sys.executable, str(HERE), str(tmp_path)], env=os.environ | quiet, capture_output=True,
        text=True, timeout=500, cwd=HERE.parent,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr
    told = json.loads(child.stdout.splitlines()[-1])
    assert told["nodes"] == 2 and told["refused"].startswith("1 of 2 units failed, first 'b'")
    one, two = tmp_path / "serial", tmp_path / "ray"
    names = sorted(p.relative_to(one) for p in one.glob("log_probs/*.npy"))
    assert names and (two / "top.parquet").read_bytes() == (one / "top.parquet").read_bytes()
    for name in names:
        np.testing.assert_array_equal(np.load(two / name), np.load(one / name))


def fail_on_b(unit: str, folder: Path) -> dict[str, str]:
    """A unit of work of which one fails on its worker."""
    if unit == "b":
        raise ValueError("no b here")
    return {"unit": unit}


def score_twice(root: Path) -> None:
    """In the child: a cluster of a head and one more node, one processor each."""
    import ray
    import torch
    from ray.cluster_utils import Cluster

    from vislang.curate.classifier import DomainClassifier
    from vislang.curate.collections import open_collection
    from vislang.curate.score import Scoring, score_collection
    from vislang.errors import UserError
    from vislang.files import run_units

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    cluster.add_node(**small)
    os.environ["RAY_ADDRESS"] = cluster.address
    torch.manual_seed(0)
    made = DomainClassifier("ab", 16).eval()
    found, how = open_collection(root / "web"), Scoring(k=20, block=64, full="float32")
    score_collection(found, made, root / "serial", how)
    score_collection(found, made, root / "ray", how, engine="ray")
    nodes = sum(node["Alive"] for node in ray.nodes())
    refused = ""
    try:
        run_units(root / "fails", ["a", "b"], fail_on_b, {}, engine="ray")
    except UserError as error:
        refused = str(error)
    print(json.dumps({"nodes": nodes, "refused": refused}))


if __name__ == "__main__":
    score_twice(Path(sys.argv[1]))
