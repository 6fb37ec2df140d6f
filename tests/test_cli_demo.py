"""The demo as a newcomer runs it: real digits, the whole flow, a page at the end."""

import json
import subprocess
import sys

import pytest

from vislang.evaluate import EVALUATIONS


@pytest.mark.slow
def test_the_demo_learns_digits_and_reports_every_evaluation(tmp_path, child_environment):
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "vislang", "demo", "--out", str(out), "--run.tensorboard", "false"],
        env=child_environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Report: {out / 'report.html'}" in done.stdout

    last = max((out / "scores").iterdir())
    scores = {path.stem: json.loads(path.read_text()) for path in last.glob("*.json")}
    assert set(scores) == set(EVALUATIONS)
    accuracy = scores["zeroshot"]["values"]["accuracy"]
    assert accuracy["n"] == 500
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["value"] >= 0.95
    assert scores["probe"]["values"]["accuracy"]["value"] >= 0.95
    assert scores["cluster"]["values"]["ami"]["value"] >= 0.8
    for found in scores.values():
        assert found["provenance"]["source"] == "digits"

    page = (out / "report.html").read_text(encoding="utf-8")
    for name in ("Zero-shot", "Retrieval", "probe", "Few-shot"):
        assert name.lower() in page.lower()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
