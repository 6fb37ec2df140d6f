"""Bad input on the command line: one clear message, exit code 2, finished work intact."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vislang.cli import main as cli
from vislang.config import write_config
from vislang.recipes import find_config
from vislang.recipes.tiny import tiny
from vislang.train.log import read_log


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    write_config(path, tiny(find_config("siglip")))
    return str(path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """40 pictures with captions in a table, in folders of two classes."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    rows = ["filepath,caption"]
    for i in range(40):
        path = root / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
        rows.append(f"{path.relative_to(root)},picture number {i}")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    return root


def refused(capsys, *arguments: str) -> str:
    """The one message of a `vislang` command that must end with exit code 2."""
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--data.train", "no/such/folder"], ["no/such/folder"]),
        (["--data.train", "{root}/empty"], ["empty"]),
        (["--data.train", "{root}/pairs.csv", "--data.train_options.caption", "captoin"],
         ["captoin", "Did you mean 'caption'"]),
        (["--data.train", "tabel:{root}/pairs.csv"], ["tabel", "Did you mean 'table'"]),
        (["--data.train", "{root}", "--data.train_options.splitt", "train"],
         ["splitt", "Did you mean 'split'"]),
        (["--data.train", "{root}"], ["text", "template"]),
        (["--data.train", "{root}/pairs.csv", "--data.batch_size", "64"], ["64", "40"]),
        (["--data.batch_size", "0"], ["batch_size", "0"]),
        (["--model.image.name", "scratch_vitt"], ["Did you mean 'scratch_vit'"]),
        (["--model.image.options.depht", "1"], ["depht", "Did you mean 'depth'"]),
        (["--model.image.options.depth", "many"], ["depth", "many"]),
        (["--objective.name", "infonec"], ["Did you mean 'infonce'"]),
        (["--objective.options.temprature", "1"], ["temprature", "'temperature'"]),
        (["--data.augment", "simclrr"], ["Did you mean 'simclr'"]),
        (["--run.device", "gpu"], ["gpu", "cpu"]),
        (["--run.precision", "fp8"], ["fp8", "fp32"]),
        (["--run.checkpoint_every", "often"], ["checkpoint_every", "often"]),
        (["--run.evaluations", "zeroshoot"], ["Did you mean 'zeroshot'"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)  # fmt: skip
def test_train_refuses_before_it_leaves_anything(flags, parts, config, pictures, tmp_path, capsys):
    (pictures / "empty").mkdir()
    flags = [flag.replace("{root}", str(pictures)) for flag in flags]
    message = refused(capsys, "train", config, "--out", str(tmp_path / "run"), *flags)
    for part in parts:
        assert part in message, message
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_good(config, tmp_path, capsys):
    flags = ["--optim.lr", "1e30", "--optim.clip_grad", "0", "--optim.warmup", "0",
             "--run.checkpoint_every", "1 steps", "--run.evaluations", "[]"]  # fmt: skip
    message = refused(capsys, "train", config, "--out", str(tmp_path / "run"), *flags)
    assert "optim.lr" in message
    assert (tmp_path / "run" / "config.yaml").exists()


def test_images_that_cannot_be_used_become_rows_and_the_run_goes_on(
    config, pictures, tmp_path, capsys
):
    (pictures / "cat" / "1.png").write_bytes(b"no picture")
    (pictures / "dog" / "2.png").write_bytes((pictures / "dog" / "4.png").read_bytes()[:60])
    with (pictures / "pairs.csv").open("a") as table:
        table.write("gone.png,a picture that is not there\n")
    flags = ["--data.train", str(pictures / "pairs.csv"), "--data.valid="]
    assert cli.main(["train", config, "--out", str(tmp_path / "run"), *flags]) == 0
    rows = [line for line in read_log(tmp_path / "run") if line["kind"] == "rejected"]
    assert {Path(row["id"]).name for row in rows} == {"1.png", "2.png", "gone.png"}
    assert all(row["reason"] for row in rows)


def test_a_damaged_checkpoint_is_named_and_an_older_one_serves(config, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["train", config, "--out", str(run), "--run.evaluations", "[]"]) == 0
    newest = run / "checkpoints" / "000000004"
    good = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(good[:-4] + b"\0\0\0\1")
    message = refused(capsys, "evaluate", str(newest), "--source", "digits:test")
    assert "model.safetensors" in message
    assert cli.main(["train", config, "--out", str(run), "--run.evaluations", "[]"]) == 0
    assert "000000004 is skipped" in capsys.readouterr().out
    assert (newest / "model.safetensors").read_bytes() == good


def test_a_folder_that_is_no_run_is_no_model(tmp_path, capsys):
    message = refused(capsys, "evaluate", str(tmp_path), "--source", "digits", "--out", "x")
    assert "is no model" in message
    assert "run folder" in refused(capsys, "report", str(tmp_path))
    assert "no model" in refused(capsys, "export", str(tmp_path / "none"), "--out", "x")
