"""GRIT: samples, distortions, submissions, runs that are killed."""

# ruff: noqa: F811  pytest's fixtures are arguments

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from localize_cases import GOLDEN, SAMPLE, photos, samples_file  # noqa: F401  a fixture
from vislang.cli import main as cli
from vislang.errors import UserError
from vislang.localize.baselines import random
from vislang.localize.grit import Confidence, run_grit
from vislang.localize.grit_format import validate_submission, write_submission
from vislang.localize.grit_samples import distort, make_distorted, read_samples


def test_distortions_are_the_golden():
    numbers = np.load(GOLDEN / "localize_methods.npz")
    image = numbers["distortion.a"]
    for kind in ("int16_inrange", "int16_overflow", "float32", "int8_wrap"):
        found = distort(image, numbers[f"distortion.delta_{kind}"])
        np.testing.assert_array_equal(found, numbers[f"distortion.result_{kind}"], err_msg=kind)
    delta = numbers["distortion.delta_int16_overflow"]
    clipped = distort(image, delta, "clip").astype(int)
    np.testing.assert_array_equal(clipped, np.clip(image.astype(int) + delta, 0, 255))
    with pytest.raises(UserError, match="delta is"):
        distort(image, delta[:3])


def test_distorted_pictures_are_made_once(tmp_path, photos):
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "GRIT"
    (root / "images").mkdir(parents=True)
    Image.fromarray(np.full((4, 5, 3), 250, np.uint8)).save(root / "images/p.png")
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["a"] = np.full((4, 5, 3), 10, np.int16)
    row = SAMPLE | {"example_id": "a_dist", "image_id": "distorted/localization/p.png"}
    samples = read_samples(samples_file(tmp_path, [row]))
    assert make_distorted(root, samples, tmp_path / "d.hdf5") == 1
    assert make_distorted(root, samples, tmp_path / "d.hdf5") == 0
    with Image.open(root / "images/distorted/localization/p.png") as file:
        made = np.asarray(file)
    assert (made == 4).all()  # 260 wraps
    (root / "images/distorted/localization/p.png").unlink()
    run = ["localize", "none", str(tmp_path / "samples.json"), "--suite", "grit"]
    run += ["--method", "centre", "--deltas", str(tmp_path / "d.hdf5"), "--out_of_range", "clip"]
    where = ["--out", str(tmp_path / "out"), "--images"]
    assert cli.main([*run, *where, str(root / "images")]) == 0
    with Image.open(root / "images/distorted/localization/p.png") as file:
        assert (np.asarray(file) == 255).all()
    assert cli.main([*run, *where, str(root)]) == 2  # not GRIT's folder images
    with pytest.raises(UserError, match="no delta"):
        other = read_samples(
            samples_file(
                tmp_path,
                [row | {"example_id": "b_dist", "image_id": "distorted/localization/q.png"}],
            )
        )
        make_distorted(root, other, tmp_path / "d.hdf5")


def test_samples_are_checked(tmp_path):
    other = SAMPLE | {"example_id": "b", "task_name": "vqa"}
    assert [s.id for s in read_samples(samples_file(tmp_path, [SAMPLE, other]))] == ["a"]
    for rows, words in (
        ([SAMPLE, SAMPLE], "twice"),
        ([{"example_id": "a"}], "task_name"),
        ([SAMPLE | {"task_name": "sing"}], "Known"),
        ([other], "no sample"),
    ):
        with pytest.raises(UserError, match=words):
            read_samples(samples_file(tmp_path, rows))


def test_a_submission_is_whole_and_valid(tmp_path, photos):
    names = ["123.jpg", "127.jpg", "nowhere.jpg", "../../etc/passwd", "123.jpg"]
    rows = [SAMPLE | {"example_id": str(k), "image_id": n} for k, n in enumerate(names)]
    rows[4]["task_query"] = ""
    samples = read_samples(samples_file(tmp_path, rows))
    answers = run_grit(random(), samples, photos, tmp_path / "run", shard=2)
    entries = answers["localization"]
    assert [e["example_id"] for e in entries] == ["0", "1", "2", "3", "4"]
    assert entries[0]["bboxes"] and all(e["confidence"] == 0 for e in entries[1:])
    assert all(not e["bboxes"] and e["reason"] for e in entries[1:])
    file = write_submission(tmp_path / "ablation.zip", answers, samples, 151)
    with zipfile.ZipFile(file) as made:
        assert sorted(made.namelist()) == ["ablation/localization.json", "ablation/params.json"]
        body = json.loads(made.read("ablation/localization.json"))
    assert set(body[0]) == {"example_id", "confidence", "bboxes"}
    assert validate_submission(file, "ablation", samples) == {"localization": 5}
    with pytest.raises(UserError, match="missing"):
        write_submission(tmp_path / "test.zip", {"localization": entries[1:]}, samples, 1)
    assert not (tmp_path / "test.zip").exists()
    for change, words in (
        ({"confidence": 2}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"bboxes": [[1, 2, 3]]}, "4 finite"),
        ({"bboxes": [[1, 2, 3, float("nan")]]}, "4 finite"),
        ({"bboxes": None}, "list"),
        ({"example_id": 7}, "example_id"),
    ):
        bad = {"localization": [entries[0] | change, *entries[1:]]}
        with pytest.raises(UserError, match=words):
            write_submission(tmp_path / "test.zip", bad, samples, 1)
    with pytest.raises(UserError, match="called"):
        write_submission(tmp_path / "mine.zip", answers, samples, 1)


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("vqa", {"words": "two"}, {"words": ["two"]}),
        ("keypoint", {"points": [[0] * 51]}, {"points": [[0] * 50]}),
        ("segmentation", {"masks": [{"size": [2, 2], "counts": "04"}]}, {"masks": [{"size": [2]}]}),
        ("normal", {"normal": "1.png"}, {"normal": None}),
    ],
)
def test_all_result_formats(task, good, bad):
    def packed(entry) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            made.writestr("test/params.json", '{"params_in_millions": 1}')
            row = {"example_id": "a", "confidence": 0.5} | entry
            made.writestr(f"test/{task}.json", json.dumps([row]))
        return buffer.getvalue()

    assert validate_submission(packed(good), "test", []) == {task: 1}
    with pytest.raises(UserError, match=task):
        validate_submission(packed(bad), "test", [])


def test_confidence_is_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(2 * scores - 1)))
    found = Confidence.fit(scores, right)
    assert found.a == pytest.approx(2, abs=0.25) and found.b == pytest.approx(-1, abs=0.15)
    assert found(float("nan")) == 0.5 and 0 <= found(1e9) <= 1


def test_a_killed_run_goes_on(tmp_path, photos, child_environment):
    """A toy GRIT tree from samples to a valid zip, killed twice in the middle."""
    rows = [SAMPLE | {"example_id": f"s{k:02d}", "image_id": "123.jpg"} for k in range(12)]
    file = samples_file(tmp_path, rows)
    program = """
import sys, time
from vislang.localize.baselines import random
from vislang.localize.grit import run_grit
from vislang.localize.grit_format import write_submission
from vislang.localize.grit_samples import read_samples
plain = random()
def slow(images, phrases):
    time.sleep(0.25)
    return plain(images, phrases)
slow.name, slow.settings = plain.name, plain.settings
samples = read_samples(sys.argv[1])
answers = run_grit(slow, samples, sys.argv[2], sys.argv[3], shard=1)
write_submission(sys.argv[3] + '/test.zip', answers, samples, 1)
"""
    out = tmp_path / "run"
    command = [sys.executable, "-c", program, str(file), str(photos), str(out)]
    for at_least in (2, 5):
        child = subprocess.Popen(command, env=child_environment)
        wait = time.monotonic() + 120
        while len(list(out.glob("units/*.json"))) < at_least and time.monotonic() < wait:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not (out / "test.zip").exists()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("localization-*.json")}
    assert len(kept) >= 5
    subprocess.run(command, env=child_environment, check=True)
    whole = [p for p, stamp in kept.items() if p.stat().st_mtime_ns == stamp]
    assert len(whole) >= len(kept) - 1  # at most one was written without its note
    samples = read_samples(file)
    assert validate_submission(out / "test.zip", "test", samples) == {"localization": 12}
    plain = run_grit(random(), samples, photos, tmp_path / "other", shard=1)
    with zipfile.ZipFile(out / "test.zip") as made:
        body = json.loads(made.read("test/localization.json"))
    assert [e["bboxes"] for e in body] == [e["bboxes"] for e in plain["localization"]]


def test_processes_share_the_pieces(tmp_path, photos, monkeypatch):
    rows = [SAMPLE | {"example_id": str(k)} for k in range(4)]
    samples = read_samples(samples_file(tmp_path, rows))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run_grit(random(), samples, photos, tmp_path / "run", shard=1) is None
    monkeypatch.setenv("RANK", "1")
    assert len(run_grit(random(), samples, photos, tmp_path / "run", shard=1)["localization"]) == 4
