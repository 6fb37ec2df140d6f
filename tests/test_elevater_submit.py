"""ELEVATER's submissions: the toolkit's bytes from its files, and nothing it would refuse."""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vislang.cli import main as cli
from vislang.data.elevater_sets import ElevaterSet
from vislang.errors import UserError
from vislang.evaluate.elevater.predictions import (
    MEMBER,
    Predictions,
    check_submission,
    combine,
    find_predictions,
    read_predictions,
    submission_text,
    submit,
    write_predictions,
    write_submission,
)

SETS = {"toy": ElevaterSet("toy", "toy", "toy_1", 3, 9, 4)}


def made(seed: int = 0, shots: int = 5, **changes) -> Predictions:
    rows = np.random.default_rng(seed).dirichlet(np.ones(3), (1, 4)).astype(np.float32)
    found = Predictions("m", "toy", 12, 50, 20, 40, shots, (seed,), rows)
    return replace(found, **changes)


def seeds() -> list[Predictions]:
    return [made(seed) for seed in (0, 1, 2)]


def test_what_is_written_is_read_again(tmp_path):
    path = write_predictions(made(1), tmp_path)
    found = read_predictions(path)
    assert path.name == "seed1_toy.safetensors" and found.facts() == made(1).facts()
    assert np.array_equal(found.predictions, made(1).predictions)
    assert write_predictions(made(0, 0), tmp_path).name == "toy.safetensors"


def test_the_text_is_what_json_writes():
    (record,) = combine(seeds())
    text = "".join(submission_text([record, record]))
    body = record.facts() | {
        "predictions": [[[round(v, 6) for v in row] for row in one]
                        for one in record.predictions.tolist()]
    }  # fmt: skip
    assert text == json.dumps({"data": [body, body]})
    assert record.num_trainable_params == 12.0 and record.rnd_seeds == (0, 1, 2)


def test_a_zip_is_checked_and_repeatable(tmp_path):
    for part in reversed(seeds()):
        write_predictions(part, tmp_path / "elevater" / "predictions" / "probe-5")
    assert submit([tmp_path], tmp_path / "a.zip", sets=SETS) == []
    assert submit([tmp_path], tmp_path / "b.zip", "probe-5", SETS) == []
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        (info,) = archive.infolist()
        assert (info.filename, info.compress_type) == (MEMBER, zipfile.ZIP_DEFLATED)
        (record,) = json.loads(archive.read(MEMBER))["data"]
    assert record["rnd_seeds"] == [0, 1, 2] and np.shape(record["predictions"]) == (3, 4, 3)


NOT_ONE = np.full((1, 4, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([], "no predictions to submit"),
        ([made(0), made(1)], r"\[3, 4, 3\], got \[2, 4, 3\]"),
        ([made(0), made(1), made(3)], r"seeds must be \[0, 1, 2\]"),
        ([made(0), made(0), made(1)], "occurs twice"),
        ([made(0), made(1, model_name="n")], "different model_name"),
        ([made(0), made(1, predictions=NOT_ONE[:, :3])], "different sizes"),
        ([made(0, 0, predictions=NOT_ONE)], "must sum to 1"),
        ([made(0, 0, predictions=NOT_ONE * np.nan)], "between 0 and 1"),
        ([made(0, 0, predictions=-NOT_ONE)], "between 0 and 1"),
        ([made(0, 0, dataset_name="tay")], r"no set 'tay'\. Did you mean 'toy'"),
        ([made(0, 0), made(0, -1, dataset_name="tay")], "one number of shots"),
    ],
)
def test_what_the_leaderboard_would_refuse_is_refused(tmp_path, parts, why):
    with pytest.raises(UserError, match=why):
        check_submission(combine(parts), SETS)


def test_files_that_are_no_predictions_are_explained(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    (tmp_path / "y.json").write_text("[]")
    (tmp_path / "z.json").write_text(
        json.dumps(made().facts() | {"predictions": [[[1.0], [0.5, 0.5]]]})
    )
    for name, why in (("x.safetensors", "no predictions"), ("y.json", "it lacks"),
                      ("z.json", "are no array")):  # fmt: skip
        with pytest.raises(UserError, match=why):
            read_predictions(tmp_path / name)
    with pytest.raises(UserError, match="There are no predictions"):
        find_predictions([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no predictions"):
        find_predictions([tmp_path / "empty"])
    for task in ("probe-5", "zeroshot"):
        write_predictions(made(), tmp_path / "run" / "elevater" / "predictions" / task)
    with pytest.raises(UserError, match="has predictions of probe-5, zeroshot"):
        find_predictions([tmp_path / "run"])


def test_the_command_writes_a_zip_and_says_what_is_missing(tmp_path, capsys):
    rows = np.full((1, 500, 2), 0.5, np.float32)
    write_predictions(made(0, 0, dataset_name="hateful-memes", predictions=rows), tmp_path / "p")
    assert cli.main(["submit", "elevater", f"{tmp_path}/p", "--out", f"{tmp_path}/z.zip"]) == 0
    assert "Without 19 sets" in capsys.readouterr().out and (tmp_path / "z.zip").exists()


def test_the_zips_of_the_original_are_made_again_from_its_files(tmp_path):
    """Byte for byte, in its order of files, which the toolkit leaves to the file system."""
    data = os.environ.get("VISLANG_TEST_DATA")
    home = Path(data or "/none").parent / "golden/composition_and_evaluation/elevater_toy"
    if not home.is_dir():
        pytest.skip("the original's toy tree is not here (VISLANG_TEST_DATA)")
    for folder in (home / "predictions").iterdir():
        with zipfile.ZipFile(folder / "all_predictions.zip") as archive:
            (golden,) = archive.infolist()
            theirs = archive.read(golden).decode()
        names = {r["dataset_name"]: r["rnd_seeds"] for r in json.loads(theirs)["data"]}
        parts = [read_predictions(path) for path in folder.glob("*.json")]
        order = list(names)
        parts.sort(key=lambda p: (order.index(p.dataset_name),
                                  names[p.dataset_name].index(p.rnd_seeds[0])))  # fmt: skip
        found = combine(parts)
        assert "".join(submission_text(found)) == theirs
        write_submission(found, tmp_path / "ours.zip")
        with zipfile.ZipFile(tmp_path / "ours.zip") as archive:
            (ours,) = archive.infolist()
            assert ours.CRC == golden.CRC and ours.compress_size == golden.compress_size
