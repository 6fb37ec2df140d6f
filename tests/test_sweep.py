"""Sweeps: grids, rows of what fails, resuming, the best on the valid source, the page."""

import csv
import json

import pytest

from runs import digits
from test_train import same_bits
from vislang.cli import main as cli
from vislang.config import write_config
from vislang.errors import UserError
from vislang.report.collect import read_run
from vislang.report.sweep import said
from vislang.train import train
from vislang.train.checkpoint import checkpoints
from vislang.train.sweep import combinations, read_vary, summary


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    made = digits(data__valid="digits:test", run__evaluations="zeroshot", optim__steps=4,
                  run__checkpoint_every="2 steps")  # fmt: skip
    path = tmp_path_factory.mktemp("sweep") / "config.yaml"
    write_config(path, made)
    return made, path


def test_a_grid_and_its_names():
    found = combinations(digits(), read_vary(["optim.lr=1e-4", "1e-05", "run.seed=0", "1"]))
    assert list(found) == [f"lr-{lr}_seed-{s}" for lr in ("0.0001", "1e-05") for s in (0, 1)]
    held, changed = found["lr-1e-05_seed-1"]
    assert held == {"optim.lr": 1e-5, "run.seed": 1}
    assert (changed.optim.lr, changed.run.seed) == (1e-5, 1)
    odd = combinations(digits(), {"model.image.lock": ["a/b", "a:b"]})
    assert len(odd) == 2 and all("/" not in name for name in odd)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["1e-4"], "must begin with a field"),
        (["optim.lr="], "each field once"),
        (["optim.lr=1", "optim.lr=2"], "each field once"),
        (["optim.lrr=1"], r"Did you mean 'lr'"),
        (["optim.lr=fast"], r"optim\.lr must be float"),
        (["data.valid=a,b"], "the same in all"),
        ([], "needs fields to vary"),
        (["run.seed=" + ",".join(map(str, range(1001)))], "at most 1,000"),
    ],
)
def test_what_cannot_be_varied_is_refused(vary, message):
    with pytest.raises(UserError, match=message):
        combinations(digits(), read_vary(vary))


def test_a_sweep_by_one_command(config, tmp_path, capsys):
    made, path = config
    out = tmp_path / "s"
    command = ["sweep", str(path), "--out", str(out), "--vary"]
    assert cli.main([*command, "optim.lr=1e-3,0,data.batch_size=32,99999"]) == 0
    told = capsys.readouterr().out
    note = json.loads((out / "sweep.json").read_text())
    rows = {row["run"]: row for row in note["rows"]}
    assert len(rows) == 4 and sum(row["status"] == "failed" for row in rows.values()) == 2
    failed = rows["lr-0.001_batch_size-99999"]
    assert "batch" in failed["why"] and failed["why"] in (out / "sweep.md").read_text()
    good = rows["lr-0.001_batch_size-32"]
    assert good["low"] <= good["value"] <= good["high"] and good["step"] == 4
    assert note["watch"] == "zeroshot.accuracy"
    first = max((r for r in note["rows"] if r["status"] == "finished"), key=lambda r: r["value"])
    assert note["best"]["runs"] == [first["run"]] and "Best on digits:test" in told
    lines = list(csv.reader((out / "sweep.csv").read_text().splitlines()))
    assert len(lines) == 5 and lines[0][:3] == ["run", "optim.lr", "data.batch_size"]
    page = (out / "report.html").read_text()
    assert "Sweep: runs" in page and failed["why"][:40] in page.replace("&#x27;", "'")

    # Each is what `vislang train` would have made, and nothing is trained a second time.
    train(made, tmp_path / "alone")
    place = out / "runs" / "lr-0.001_batch_size-32"
    same_bits(checkpoints(place)[-1], checkpoints(tmp_path / "alone")[-1])
    before = (place / "log.jsonl").read_bytes()
    assert cli.main([*command, "optim.lr=1e-3,5e-4,data.batch_size=32"]) == 0
    assert (place / "log.jsonl").read_bytes() == before
    assert len(json.loads((out / "sweep.json").read_text())["rows"]) == 2
    assert cli.main([*command, "optim.lr=1e-3", "--optim.steps", "5"]) == 2
    assert "other settings: config.optim.steps (4 -> 5)" in capsys.readouterr().err


def test_a_kill_in_a_sweep_costs_at_most_steps(config, tmp_path, monkeypatch):
    from vislang.train import sweep as module

    made, _ = config
    calls = []

    def killed(changed, place, judge):
        calls.append(place.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(changed, place, judge=judge)

    def judge_of(changed, place):
        return lambda model, step: {"zeroshot": {"accuracy": {"value": changed.optim.lr}}}

    monkeypatch.setattr(module, "train", killed)
    vary = {"optim.lr": [1e-3, 1e-4]}
    with pytest.raises(KeyboardInterrupt):
        module.sweep(made, vary, tmp_path, judge_of)
    found = module.sweep(made, vary, tmp_path, judge_of)
    assert calls == ["lr-0.001", "lr-0.0001", "lr-0.0001"]
    assert found["best"]["values"] == {"optim.lr": 1e-3}


def rows_of(values):
    return [
        {"run": f"r{i}", "values": {"optim.lr": lr, "run.seed": seed}, "status": "finished",
         "watch": "zeroshot.accuracy", "sign": 1, "value": value, "step": 4}
        for i, (lr, seed, value) in enumerate(values)
    ]  # fmt: skip


def test_over_seeds_the_mean_decides_and_less_may_be_better(tmp_path):
    rows = rows_of([(1, 0, 0.9), (1, 1, 0.1), (2, 0, 0.6), (2, 1, 0.7)])
    found = summary(rows, ["optim.lr", "run.seed"], digits())
    assert found["best"] == {"runs": ["r2", "r3"], "values": {"optim.lr": 2}}
    mean = found["means"][1]
    assert mean["value"] == pytest.approx(0.65) and mean["low"] < 0.65 < mean["high"]
    assert "over 2 seeds" in said(found, tmp_path)
    assert "not told apart" in said(found, tmp_path), "0.9 and 0.1 are as good as anything"
    assert all(mean["low"] >= 0 and mean["high"] <= 1 for mean in found["means"])
    apart = rows_of([(1, 0, 0.2), (1, 1, 0.21), (2, 0, 0.6), (2, 1, 0.61)])
    assert "not told" not in said(summary(apart, ["optim.lr", "run.seed"], digits()), tmp_path)
    less = [row | {"sign": -1} for row in rows]
    assert summary(less, ["optim.lr"], digits())["best"]["runs"] == ["r1"]
    nothing = summary([{"run": "a", "values": {}, "status": "failed", "why": "x"}], [], digits())
    assert "No run finished" in said(nothing, tmp_path)


def test_a_sweep_without_a_valid_source_is_refused(tmp_path, capsys):
    write_config(tmp_path / "c.yaml", digits())
    command = ["sweep", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "s"), "--vary"]
    assert cli.main([*command, "optim.lr=1e-3"]) == 2
    assert "needs data.valid and run.evaluations" in capsys.readouterr().err


def test_the_page_of_a_sweep_stands_alone(tmp_path):
    from vislang.report import write_report

    (tmp_path / "sweep.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(UserError, match="give it alone"):
        write_report([tmp_path, tmp_path], tmp_path / "a.html")
    with pytest.raises(UserError, match="No run of the sweep"):
        write_report([tmp_path], tmp_path / "a.html")
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path)
