"""`vislang probe` from one end to the other: tiny models on digits and drawn pictures."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from vislang.cli import main as cli
from vislang.data.sample import BadSample
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.evaluate.scores import read_scores
from vislang.evaluate.written import CONDITIONS, Writing, Written, write_word

QUICK = [
    "--analysis-options", "{transfer: {costs: [1.0]}, subspace: {resamples: 20}}",
    "--domains", "noop,dim,upside_down,sketchify", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Two tiny towers with random weights, as an exported folder."""
    import torch

    from runs import digits
    from vislang.models.build import build_model
    from vislang.models.saved import save_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = digits().model
    save_model(build_model(config), config, folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Three classes of drawn pictures, eight each, and one that is broken."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("pictures") / "shapes", np.random.default_rng(0)
    for c, name in enumerate(("red_thing", "green thing", "blue")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[..., c] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    (folder / "blue" / "9.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def probed(model, pictures, tmp_path_factory) -> Path:
    """The folder of a finished probe with every analysis."""
    extra = tmp_path_factory.mktemp("extra")
    for group in ("red_thing", "blue"):
        (extra / "groups" / group).mkdir(parents=True)
        for file in sorted((pictures / group).glob("[0-7].png"))[:4]:
            (extra / "groups" / group / file.name).write_bytes(file.read_bytes())
    (extra / "groups" / "warm.txt").write_text("a warm colour\na fire\n")
    (extra / "groups" / "cold.txt").write_text("# a remark\nsome ice\n")
    photos = extra / "photos.csv"
    rows = [("a.png", "red thing", ""), ("b.png", "red thing (old)", "blue")]
    for name, _, _ in rows:
        (extra / name).write_bytes((pictures / "red_thing" / "0.png").read_bytes())
    with photos.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "object", "written_word"), *rows])
    out = tmp_path_factory.mktemp("probed") / "out"
    flags = ["--bias", str(extra / "groups"), "--photos", str(photos)]
    assert cli.main(["probe", str(model), str(pictures), "--out", str(out), *QUICK, *flags]) == 0
    return out


def test_everything_is_written(probed):
    names = {"robustness", "transfer", "subspace", "typographic", "bias"}
    assert {path.stem for path in probed.glob("scores/*/*.json")} == names
    assert {path.name for path in (probed / "tables").iterdir()} == {
        "robustness_table.csv", "official_zeroshot_table.csv", "linearprobe_table.csv",
        "subspace_table.csv",
    }  # fmt: skip
    scores = read_scores(probed / "scores" / "000000000" / "robustness.json")
    assert scores.n == 24
    assert [row[0] for row in scores.tables["cosine"]["rows"]] == [
        "sketchify", "dim", "upside_down",
    ]  # fmt: skip
    assert any("1 images that lack a domain" in note for note in scores.notes)
    made = scores.provenance
    assert made["settings"]["domains"][0] == "noop"
    assert made["settings"]["ks"] == [1, 5, 10]
    assert made["versions"]["numpy"]


def test_the_page_shows_each_analysis(probed):
    page = (probed / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<script>.*</script>|<style>.*</style>|<[^>]+>", "", page, flags=re.S)
    for words in ("Robustness to described shifts", "won back by its own prompts",
                  "Accuracy of probes fitted on one domain", "Angles between components",
                  "Answers by what is on the paper", "Groups of images, groups of captions",
                  "Real photos:"):  # fmt: skip
        assert words in text, words
    assert "could not be read" not in text
    assert "Learning curves" not in text


def test_the_same_command_again_embeds_nothing(probed, model, pictures, capsys, monkeypatch):
    from vislang.embed import domains

    def refuse(*_, **__):
        raise AssertionError("embedded again")

    before = (probed / "scores" / "000000000" / "subspace.json").read_bytes()
    monkeypatch.setattr(domains.DomainJob, "work", refuse)
    arguments = [str(model), str(pictures), "--out", str(probed), *QUICK]
    assert cli.main(["probe", *arguments, "--analyses", "subspace,transfer"]) == 0
    out = capsys.readouterr().out
    assert "Of the variance of image embeddings the class explains" in out
    assert (probed / "scores" / "000000000" / "subspace.json").read_bytes() == before


def test_parts_embed_and_the_last_one_analyses(model, tmp_path, capsys):
    base = ["probe", str(model), "digits:test", "--out", str(tmp_path), *QUICK[2:],
            "--analyses", "robustness", "--batch-size", "256",
            "--prompts", "standard,own"]  # fmt: skip
    assert cli.main([*base, "--part", "1/2"]) == 0
    assert "Part 1/2 is embedded" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()
    assert cli.main([*base, "--part", "2/2"]) == 0
    assert "Unchanged images are classified right" in capsys.readouterr().out
    body = json.loads(next(tmp_path.glob("scores/*/robustness.json")).read_text())
    assert body["n"] == 500
    assert "official_prompts" not in body["tables"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--analyses", "robustnes"], "Did you mean 'robustness'"),
        (["--domains", "blurr"], "Did you mean 'blur'"),
        (["--part", "3/2"], "--part must be I/N"),
        (["--part", "two"], "--part must be I/N"),
        (["--analyses", "bias"], "--bias FOLDER"),
        (["--analysis-options", "{transfer: {tests: 0.5}}"], "Did you mean 'test'"),
        (["--analysis-options", "{typographic: {place: middle}}"], "place must be random or"),
        (["--analysis-options", "{typographic: {colour: blurple}}"], "colour must be a colour"),
    ],
)
def test_what_cannot_be_done_is_said(flags, message, model, pictures, tmp_path, capsys):
    arguments = ["probe", str(model), str(pictures), "--out", str(tmp_path / "out"), *flags]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_source_without_labels_is_refused(model, pictures, tmp_path, capsys):
    arguments = ["probe", str(model), str(pictures / "blue"), "--out", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "needs labelled images" in capsys.readouterr().err


def test_one_class_is_analysed_as_far_as_it_goes(model, pictures, tmp_path, capsys):
    folder, wnid = tmp_path / "one", "n00000001"
    (folder / wnid).mkdir(parents=True)
    (folder / "words.txt").write_text(f"{wnid}\tblue\n")
    for i in range(4):
        (folder / wnid / f"{i}.png").write_bytes((pictures / "blue" / f"{i}.png").read_bytes())
    arguments = ["probe", str(model), str(folder), "--out", str(tmp_path / "out"), *QUICK]
    assert cli.main(arguments) == 2
    done = capsys.readouterr()
    assert "transfer needs images of at least two classes" in done.err
    assert "The other 1 analyses are written" in done.err
    assert "cosine to the class falls most" in done.out
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("place", ["random", "top left", "centre"])
def test_words_are_written_the_same_way_every_time(place):
    pixels = np.full((120, 160, 3), 90, np.uint8)
    writing = Writing(place=place, colour="red", paper="white")
    first = write_word(pixels, "apple", writing, "a")
    assert (first == write_word(pixels, "apple", writing, "a")).all()
    blank = write_word(pixels, "apple", writing, "a", blank=True)
    assert {tuple(p) for p in blank.reshape(-1, 3)} == {(90, 90, 90), (255, 255, 255)}
    sheet = (blank == 255).all(axis=-1)
    assert ((first != blank).any(axis=-1) <= sheet).all()  # the word stays on its paper
    assert (first != blank).any()
    assert sheet.mean() < 0.4
    long = write_word(pixels, "a very long name of some thing", writing, "a", blank=True)
    assert (long == 255).all(axis=-1)[:, [0, -1]].sum() == 0 or place != "centre"


def test_places_differ_between_images_and_small_images_are_enlarged():
    pixels = np.full((8, 8, 3), 9, np.uint8)
    sheets = {
        write_word(pixels, "nine", Writing(), str(i), blank=True).tobytes() for i in range(20)
    }
    assert len(sheets) > 4
    assert write_word(pixels, "nine", Writing(), "a").shape == (96, 96, 3)


def test_every_condition_is_the_same_image_with_another_sheet(pictures):
    source, words = open_source(str(pictures)), ["blue", "green thing", "red thing"]
    for condition in CONDITIONS:
        made = Written(source, range(len(source)), condition, words, Writing())
        sample = made[0]
        label = sample.labels[0]
        assert (made.word(label, sample.id) == label) == (condition == "own word")
    assert (
        Written(source, [0], "blank", words, Writing(seed=1)).fingerprint
        != Written(source, [0], "blank", words, Writing(seed=2)).fingerprint
    )


def test_an_image_too_small_to_write_on_is_rejected(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (7, 30)).save(tmp_path / name / "1.png")
    source = open_source(str(tmp_path))
    with pytest.raises(BadSample, match="too small: 7 x 30"):
        Written(source, [0, 1], "plain", ["a", "b"], Writing())[0]
    with pytest.raises(UserError, match="size must be"):
        Writing(size=0)


@pytest.mark.xdist_group("libraries")
@pytest.mark.parametrize("kind", ["CLIP", "RESNET"])
def test_architectures_of_open_clip_go_through_unchanged(kind, pictures, tmp_path):
    """With random weights, by the name local-dir:PATH."""
    import test_towers_open_clip as towers

    folder = towers.open_clip_folder(tmp_path / "model", getattr(towers, kind))
    arguments = [f"open_clip:local-dir:{folder}", str(pictures), "--out", str(tmp_path / "out")]
    flags = ["--domains", "dim", "--prompts", "standard,own", "--analyses", "robustness,subspace"]
    assert cli.main(["probe", *arguments, *flags, "--device", "cpu"]) == 0
    assert read_scores(tmp_path / "out/scores/000000000/robustness.json").n == 24
