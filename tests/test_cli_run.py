"""The commands at work: train, stop, go on, evaluate, embed, report, export on a tiny run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vislang.cli import main as cli
from vislang.config import with_changes, write_config
from vislang.recipes import find_config
from vislang.recipes.tiny import tiny
from vislang.train.log import read_log


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config file of a tiny run on digits."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    write_config(path, with_changes(tiny(find_config("clip")), {"data.batch_size": 64}))
    return str(path)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["train", config, "--out", str(folder)]) == 0
    return folder


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


def test_train_says_where_things_are_and_what_comes_next(config, tmp_path, capsys):
    assert cli.main(["train", config, "--out", str(tmp_path / "a"), "--optim.steps", "1"]) == 0
    out = capsys.readouterr().out
    assert f"go on with `vislang train {tmp_path / 'a'}`" in out
    assert f"Next: vislang report {tmp_path / 'a'}" in out
    assert (tmp_path / "a" / "scores" / "000000001" / "zeroshot.json").exists()


def test_a_run_folder_is_enough_to_go_on(run, capsys):
    before = (run / "config.yaml").read_bytes()
    assert cli.main(["train", str(run)]) == 0
    assert len(losses(run)) == 4
    assert (run / "config.yaml").read_bytes() == before


def test_other_settings_are_refused(run, config, capsys):
    assert cli.main(["train", config, "--out", str(run), "--optim.lr", "0.5"]) == 2
    assert "optim.lr" in capsys.readouterr().err
    assert len(losses(run)) == 4


def test_evaluations_that_the_source_cannot_serve_are_left_out_aloud(config, tmp_path, capsys):
    table = tmp_path / "pairs.csv"
    table.write_text("filepath,caption\n")
    _pictures(tmp_path, table)
    arguments = ["--data.valid", str(table), "--optim.steps", "1", "--out", str(tmp_path / "a")]
    assert cli.main(["train", config, *arguments]) == 0
    assert "zeroshot is left out" in capsys.readouterr().out
    assert {line["evaluation"] for line in read_log(tmp_path / "a") if line["kind"] == "eval"} == {
        "retrieval"
    }


def _pictures(folder: Path, table: Path, n: int = 12) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    with table.open("a") as file:
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
            file.write(f"{i}.png,picture number {i}\n")


def test_evaluate_takes_the_sources_of_the_run(run, capsys):
    assert cli.main(["evaluate", str(run), "--suite", "zeroshot,knn", "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert "zeroshot  accuracy" in out
    assert "n = 500" in out
    knn = json.loads((run / "scores" / "000000004" / "knn.json").read_text())
    assert knn["provenance"]["train_source"].startswith("digits")


def test_evaluate_with_named_sources_and_options(run, tmp_path, capsys):
    arguments = [
        "evaluate", str(run / "checkpoints" / "000000002"), "--source", "digits:test",
        "--train-source", "digits:train", "--suite", "zeroshot", "--out", str(tmp_path),
        "--suite_options.zeroshot.prompts", "the number {}", "--workers", "0",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    assert (tmp_path / "scores" / "000000002" / "zeroshot.json").exists()


def test_without_a_suite_all_that_fits_the_source_is_evaluated(run, tmp_path):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    arguments = ["--source", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", str(run), *arguments, "--workers", "0"]) == 0
    made = {path.stem for path in (tmp_path / "out" / "scores" / "000000004").glob("*.json")}
    assert made == {"zeroshot", "probe", "knn", "cluster", "fewshot", "overview"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["no/run", "--suite", "zeroshot"], "needs a place for its scores: --out DIR"),
        (["no/run", "--out", "x"], "needs samples: --source SOURCE"),
        (["RUN", "--suite", "zeroshoot"], "Did you mean 'zeroshot'?"),
        (["RUN", "--source", "digitz"], "digit"),
        (["RUN", "--suite_options.knn.kk", "3", "--suite", "knn"], "has no option 'kk'"),
    ],
)
def test_evaluate_refuses_in_one_message(run, arguments, part, capsys):
    assert cli.main(["evaluate", *(str(run) if a == "RUN" else a for a in arguments)]) == 2
    assert part in capsys.readouterr().err


def test_embed_fills_a_store_and_finds_it_again(run, tmp_path, capsys):
    from vislang.store import open_store

    arguments = ["embed", str(run), "digits:test", "--out", str(tmp_path / "store")]
    assert cli.main([*arguments, "--workers", "0"]) == 0
    assert "500 images" in capsys.readouterr().out
    assert len(open_store(tmp_path / "store")) == 500
    assert cli.main([*arguments, "--workers", "0"]) == 0
    assert cli.main([*arguments, "--workers", "0", "--batch_size", "32"]) == 2
    assert "batch_size" in capsys.readouterr().err


def test_report_of_one_run_and_of_two(run, tmp_path, capsys):
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    page = tmp_path / "both.html"
    assert cli.main(["report", str(run), str(run), "--out", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2


def test_export_and_evaluate_what_was_exported(run, tmp_path, capsys):
    out = tmp_path / "exported"
    assert cli.main(["export", str(run), "--out", str(out), "--format", "vislang"]) == 0
    arguments = ["--source", "digits:test", "--suite", "zeroshot", "--workers", "0"]
    assert cli.main(["evaluate", str(out), *arguments, "--out", str(tmp_path)]) == 0
    assert cli.main(["evaluate", str(run), *arguments, "--out", str(tmp_path / "run")]) == 0
    one = json.loads((tmp_path / "scores" / "000000000" / "zeroshot.json").read_text())
    two = json.loads((tmp_path / "run" / "scores" / "000000004" / "zeroshot.json").read_text())
    assert one["values"] == two["values"]
    assert cli.main(["export", str(run), "--out", str(out), "--format", "opnclip"]) == 2
    assert "Did you mean 'open_clip'?" in capsys.readouterr().err


def test_the_scale_that_a_run_learned_goes_into_the_export(run):
    from safetensors.numpy import load_file

    from vislang.cli.export import learned_scale

    newest = run / "checkpoints" / "000000004"
    scale, bias = learned_scale(str(run))
    assert scale == pytest.approx(float(load_file(newest / "objective.safetensors")["log_scale"]))
    assert bias is None
    assert learned_scale(str(newest)) == (scale, bias)
    assert learned_scale("open_clip:ViT-B-32/openai") == (None, None)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(config, tmp_path, child_environment):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "vislang", "train", config, "--out", str(folder),
               "--optim.steps", "150", "--run.evaluations", "[]", "--run.checkpoint_every",
               "1000 steps"]  # fmt: skip
    child = subprocess.Popen(
        command, env=child_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(losses(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    assert "Repeat the same command to go on." in out
    stopped = len(losses(folder))
    assert 3 <= stopped < 150
    assert cli.main(["train", str(folder), "--out", str(folder)]) == 0
    assert len(losses(folder)) == 150


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_losses_of_one(config, tmp_path, child_environment):
    """Same global batch, same curve: within 1e-4 relative in fp32 after all steps.

    When a command ends, the group's threads have ended: one that still held a tensor while the
    interpreter shut down aborted the process, now and then.
    """
    more = ["--optim.steps", "8", "--data.chunk", "0"]
    script = tmp_path / "vislang_and_threads.py"
    script.write_text(
        "import sys; from pathlib import Path; from vislang.cli.main import main\n"
        "if __name__ == '__main__':\n"
        "    code = main()\n"
        "    names = [p.read_text() for p in Path('/proc/self/task').glob('*/comm')]\n"
        "    print('threads of the group:', [n for n in names if 'gloo' in n], flush=True)\n"
        "    sys.exit(code)\n"
    )
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-port", str(29_500 + os.getpid() % 1000), str(script)]
    done = subprocess.run(
        [sys.executable, *launch, "train", config, "--out", str(tmp_path / "two"), *more],
        env=child_environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained: ") == 1, "one process speaks"
    assert done.stdout.count("threads of the group: []") == 2, done.stdout
    assert cli.main(["train", config, "--out", str(tmp_path / "one"), *more]) == 0
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 8
    assert two == pytest.approx(one, rel=1e-4)
