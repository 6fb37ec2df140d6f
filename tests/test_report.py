"""The page as a whole: complete, self-contained, safe, and never in want of a part."""

import base64
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from report_html import Page
from report_run import Drawn, make_config, make_run, open_drawn
from vislang.config import read_config, with_changes, write_config
from vislang.errors import UserError
from vislang.report import write_report

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "</title></style></script><b>",
    "&lt;i&gt; &amp; \\u003c",
    "abc\u202egnp.exe",
    "a\x00b\x1b[31mred\ud800lone",
    "word" * 400,
    "عربي mixed with 中文 and 👩\u200d🔬🏳️\u200d🌈",
    "=1+cmd|' /C calc'!A0",
    "{{ 7*7 }} ${x} `y`",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "clip-digits")


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written([run], tmp_path_factory.mktemp("out") / "report.html")


def written(runs: list[Path], out: Path) -> Page:
    return Page.of(write_report(runs, out, open_source=open_drawn).read_text(encoding="utf-8"))


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def change_score(run: Path, name: str, **parts: object) -> None:
    """Replace parts of the latest score of an evaluation."""
    path = sorted(run.glob(f"scores/*/{name}.json"))[-1]
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def self_contained(page: Page) -> None:
    """Nothing is asked for from anywhere, and only the page's own script and style can run."""
    assert page.faults == []
    (policy,) = [
        e for e in page.named("meta") if "Content-Security-Policy" in e.attributes.values()
    ]
    (style,), (script,) = page.named("style"), page.named("script")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.attributes["content"].split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    for kind, element in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    for element in page.elements:
        assert element.name not in ("iframe", "object", "embed", "base", "form", "audio", "video")
        for name, value in element.attributes.items():
            assert not name.startswith("on") and name != "style", element
            if name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
                assert value and value.startswith(("#", "data:")), element
    assert "url(" not in style.text and "@import" not in style.text
    assert not re.search(r"fetch\(|XMLHttp|WebSocket|import\(|innerHTML|eval\(", script.text)


def well_made(page: Page) -> None:
    """Ids are unique, links within the page lead somewhere, pictures have names."""
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in page.named("a"):
        assert link.attributes["href"][1:] in ids
    for image in page.named("img"):
        assert "alt" in image.attributes
    assert len(page.named("h1")) == 1
    levels = [int(e.name[1]) for e in page.elements if re.fullmatch(r"h[1-6]", e.name)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_page_is_self_contained_and_well_made(page):
    self_contained(page)
    well_made(page)


def test_every_section_is_there_with_what_it_promises(page):
    trained = page.by_id("trained").text
    for word in ("scratch_vit", "scratch_text", "infonce", "AdamW", "812,345", "drawn:train",
                 "1,297", "cpu", "x86_64", "samples/s"):  # fmt: skip
        assert word in trained
    charts = [caption.text for caption in page.named("figcaption")]
    for title in ("loss", "learning rate", "gradient norm", "scale", "Zero-shot classification"):
        assert any(title in chart for chart in charts), title
    scores = page.by_id("evaluations").text
    for word in ("Confusion matrix", "Picture to caption", "Caption to picture", "Wrong",
                 "Right", "Pictures × captions", "Map of embeddings", "per class",
                 "wilson 95%"):  # fmt: skip
        assert word in scores
    assert "right answer at place 3" in scores and "1 class has no sample." in scores
    assert "is: " in page.classed("truth")[0].text
    rejected = page.by_id("rejected").text
    assert "2 samples" in rejected  # the same id in two epochs is one sample
    assert "truncated image" in rejected and "train.zip:digit-0003.png" in rejected
    repeat = page.by_id("repeat").text
    assert "vislang evaluate" in repeat and "--suite zeroshot,retrieval,cluster" in repeat
    assert "--source" not in repeat  # a run is tested on its data.valid
    assert re.search(
        r"vislang train \S+/clip-digits/config.yaml --out \S+/clip-digits-again", repeat
    )


def test_values_stand_with_their_intervals_n_and_method(page, run):
    (score,) = run.glob("scores/000000400/zeroshot.json")
    accuracy = json.loads(score.read_text())["values"]["accuracy"]
    shown = f"{accuracy['value']:.3f}[{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    assert f"accuracy{shown}{accuracy['n']}" in page.by_id("evaluations").text
    assert shown in page.by_id("summary").text


def test_the_confusion_matrix_shows_the_counts_of_the_file(page, run):
    (score,) = run.glob("scores/000000400/zeroshot.json")
    counts = json.loads(score.read_text())["confusion"]["counts"]
    cells = [e for e in page.named("td") if " answered as " in (e.attributes.get("title") or "")]
    assert [int(cell.text) for cell in cells] == [count for row in counts for count in row]
    right = [cell for cell in cells if cell.attributes["class"].startswith("r")]
    assert len(right) == 10  # the diagonal has a colour of its own


def test_pictures_are_small_and_those_missing_are_named(page, run, tmp_path):
    images = page.named("img")
    assert len(images) > 40
    assert all(len(image.attributes["src"]) < 80_000 for image in images)
    assert "digit-0003" in page.classed("nopicture")[0].text  # a bad sample has no picture
    assert write_report([run], tmp_path / "a.html", open_source=open_drawn).stat().st_size < 300_000


def test_the_map_carries_a_tile_for_each_point(page):
    (card,) = page.classed("card")
    points = json.loads(card.attributes["data-points"])
    tiles = [tile for _, _, tile in points]
    assert len(points) == 60
    assert sorted(tiles) == [-1, *range(59)]  # one sample is bad
    assert [label for _, label, _ in points[:3]] == ["zero", "one", "two"]
    legend = [e.text for e in page.classed("classes")]
    assert legend[0].startswith("zero6one6two6")  # in the order of the classes, not of the alphabet


def test_hostile_text_stays_text_wherever_it_comes_from(run, tmp_path):
    names = [*HOSTILE, "a", "b", "c"][:10]
    bad = copy(run, tmp_path / "<img src=x onerror=alert(3)>")
    change_score(
        bad, "zeroshot",
        evaluation=HOSTILE[0],
        values={name: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3, "interval": name}
                for name in names},
        tables={name: {"columns": names[:2], "rows": [[name, HOSTILE[1]]]} for name in names},
        confusion={"classes": names, "counts": [[1] * 10] * 10},
        examples=[{"kind": name, "right": False, "rank": 7,
                   "query": {"id": name, "text": name, "label": name},
                   "answers": [{"text": name}, {"id": name}]} for name in names],
        cosine={"ids": names, "texts": names, "matrix": [[0.1] * 10] * 10},
        map={"ids": names, "x": [*range(10)], "y": [*range(10)], "label": names,
             "method": names[0]},
        notes=names,
        provenance={name: {name: name} for name in names} | {"source": HOSTILE[1]},
    )  # fmt: skip
    config = read_config(bad / "config.yaml")
    write_config(bad / "config.yaml", with_changes(config, {
        "model.image.name": HOSTILE[0], "model.image.options": {HOSTILE[1]: HOSTILE[2]},
        "data.train": HOSTILE[1], "objective.name": HOSTILE[2], "recipe": HOSTILE[4],
    }))  # fmt: skip
    (bad / "environment.json").write_text(json.dumps({"machine": {n: n for n in names}}))
    with (bad / "log.jsonl").open("a") as log:
        for name in names:
            log.write(json.dumps({"kind": "rejected", "id": name, "reason": name, "origin": name}))
            log.write("\n" + json.dumps({"kind": "train", "step": 9, name: 1.0, "flags": [name]}))
            log.write("\n" + json.dumps({"kind": "eval", "evaluation": name, "step": 1,
                                         "values": {name: 0.3}}) + "\n")  # fmt: skip
        log.write(json.dumps({"kind": "stop", "step": 9, "why": HOSTILE[0]}) + "\n")
    for runs in ([bad], [bad, run]):
        page = written(runs, tmp_path / "out.html")
        self_contained(page)
        well_made(page)
        assert not page.named("b") and not page.named("i")
        assert HOSTILE[0] in page.text and "abc⟨U+202E⟩gnp.exe" in page.text
        raw = (tmp_path / "out.html").read_text(encoding="utf-8")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", raw)
        assert "\\u202e" not in raw and "\\ud800" not in raw  # nor within the data for the script
        assert "👩\u200d🔬" in page.text and "عربي" in page.text


def broken(run: Path, how: str) -> None:
    if how == "no scores":
        shutil.rmtree(run / "scores")
    elif how == "no log":
        (run / "log.jsonl").unlink()
    elif how == "empty log":
        (run / "log.jsonl").write_text("")
    elif how == "torn line":
        text = (run / "log.jsonl").read_text()
        (run / "log.jsonl").write_text(text[: text.rindex('"step"')])
    elif how == "foreign lines":
        (run / "log.jsonl").write_text('5\n[]\nnot json\n{"kind": "end", "step": 3}\n')
    elif how == "unfinished":
        lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
        (run / "log.jsonl").write_text("".join(lines[:20]))
    elif how == "no config":
        (run / "config.yaml").unlink()
    elif how == "broken config":
        (run / "config.yaml").write_text("model: [unclosed")
    elif how == "no environment":
        (run / "environment.json").unlink()
    elif how == "torn score":
        path = run / "scores/000000400/zeroshot.json"
        path.write_text(path.read_text()[:500])
    elif how == "score is a list":
        (run / "scores/000000400/zeroshot.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no scores", "There are no scores"),
        ("no log", "There is no log.jsonl"),
        ("empty log", "log.jsonl is empty"),
        ("torn line", "The last line of log.jsonl is torn"),
        ("foreign lines", "3 lines of log.jsonl could not be read"),
        ("unfinished", "unfinished: the log ends at step"),
        ("no config", "There is no config.yaml"),
        ("broken config", "config.yaml could not be read"),
        ("no environment", "There is no environment.json"),
        ("torn score", "scores/000000400/zeroshot.json could not be read"),
        ("score is a list", "scores/000000400/zeroshot.json holds no scores"),
    ],
)
def test_a_missing_part_is_said_and_the_rest_is_shown(run, tmp_path, how, says):
    other = copy(run, tmp_path / "clip-digits")
    broken(other, how)
    page = written([other], tmp_path / "report.html")
    self_contained(page)
    well_made(page)
    assert says in page.by_id("summary").text
    assert page.by_id("repeat").text
    both = written([other, run], tmp_path / "both.html")
    self_contained(both)
    assert says in both.text


def test_a_loss_that_became_nan_is_told(run, tmp_path):
    other = copy(run, tmp_path / "nan")
    with (other / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "step": 410, "loss": NaN, "grad_norm": Infinity}\n')
    summary = written([other], tmp_path / "report.html").by_id("summary").text
    assert "loss was NaN or infinite for the first time at step 410" in summary


def test_scores_of_another_source_name_it_in_the_command(run, tmp_path):
    other = copy(run, tmp_path / "a run's")
    score = json.loads((run / "scores/000000400/cluster.json").read_text())
    made = score["provenance"] | {"source": "digits", "source_options": {"split": "test"}}
    change_score(other, "cluster", provenance=made)
    commands = written([other], tmp_path / "report.html").by_id("repeat").text
    assert """ --source digits --source_options '{"split": "test"}' --suite cluster""" in commands
    assert "--suite zeroshot,retrieval\n" in commands
    assert "a run'\"'\"'s/config.yaml'" in commands  # a shell takes it back as it is


def test_diagnostics_are_drawn_and_their_flags_told(run, tmp_path):
    other = copy(run, tmp_path / "collapse")
    with (other / "log.jsonl").open("a") as log:
        for step in (100, 200):
            line = {"kind": "diagnostics", "step": step, "values": {"effective_rank": 300 / step}}
            log.write(json.dumps(line | {"flags": ["collapsed"] * (step == 200)}) + "\n")
    page = written([other], tmp_path / "report.html")
    assert "Step 200: collapsed" in page.by_id("summary").text
    assert any(c.text.startswith("effective rank") for c in page.named("figcaption"))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere:x", "no source nowhere:x"),
        ("drawn:other", ""),
    ],
)
def test_a_source_that_is_gone_leaves_ids_and_a_note(tmp_path, source, says):
    config = with_changes(make_config(source), {"data.train": "nowhere:y"})
    run = make_run(tmp_path / "run", config=config, source=source)
    page = written([run], tmp_path / "report.html")
    if says:
        assert "Without pictures: the source could not be read" in page.text
        assert says in page.text and page.classed("example")[0].name != "img"
    else:
        assert "Without pictures" not in page.text


def test_a_source_that_has_changed_is_told(run, tmp_path):
    out = tmp_path / "report.html"
    write_report([run], out, open_source=lambda *_, **__: Drawn(fingerprint="another"))
    assert "has changed since it was scored" in Page.of(out.read_text()).text


def test_of_two_sources_the_one_that_was_scored_gives_the_pictures(tmp_path):
    opened = []

    def open_either(spec, **options):
        opened.append(spec)
        return Drawn(fingerprint="f00dfacef00dface" if spec == "drawn:train" else "older")

    run = make_run(tmp_path / "run")
    page = Page.of(write_report([run], tmp_path, open_source=open_either).read_text())
    assert opened == ["drawn:a", "drawn:train"] and "has changed" not in page.text


def test_a_run_folder_names_no_code_to_import(run, tmp_path, monkeypatch):
    (tmp_path / "planted").mkdir()
    for name in ("__init__", "inner"):
        (tmp_path / f"planted/{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    other = copy(run, tmp_path / "other")
    config = read_config(other / "config.yaml")
    changes = {"data.valid": "planted.inner:Source", "data.train": "planted.inner:Source:x"}
    write_config(other / "config.yaml", with_changes(config, changes))
    page = Page.of(write_report([other], tmp_path / "report.html").read_text())
    assert "'planted.inner'" in page.text and "is not one of vislang's own" in page.text


@pytest.mark.slow  # imports scikit-learn
def test_the_real_digits_are_found_by_their_ids(tmp_path):
    from vislang.data.sources import open_source

    source = open_source("digits", split="test")
    ids = [source[i].id for i in range(12)]
    config = with_changes(
        make_config("digits"), {"data.train": "digits", "data.valid_options": {"split": "test"}}
    )
    run = make_run(tmp_path / "run", config=config, source="digits")
    change_score(run, "retrieval", examples=[], cosine={
        "ids": ids, "texts": ["a", "b"], "matrix": [[0.1, 0.2]] * 12})  # fmt: skip
    page = Page.of(write_report([run], tmp_path).read_text())
    found = {e.attributes["alt"] for e in page.named("img") if e.attributes["class"] != "atlas"}
    assert found == {f"picture {id_}" for id_ in ids}


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one run folder"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(UserError, match="There is no run folder"):
        write_report([tmp_path / "none"], tmp_path / "a.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not a run folder"):
        write_report([tmp_path / "empty"], tmp_path / "a.html")
    make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"end in \.html"):
        write_report([tmp_path / "run"], tmp_path / "a.txt")
    assert not list(tmp_path.glob("a.*"))


def test_out_may_be_a_folder(run, tmp_path):
    assert write_report([run], tmp_path, open_source=open_drawn) == tmp_path / "report.html"


def test_a_large_run_stays_modest(tmp_path):
    run = make_run(tmp_path / "large", n=3000, steps=40_000)
    out = write_report([run], tmp_path, open_source=lambda *_, **__: Drawn(n=3000))
    page = Page.of(out.read_text())
    assert out.stat().st_size < 1_500_000
    assert "1,500 of 3,000 points are drawn" in page.text
    assert any("means of" in caption.text for caption in page.named("figcaption"))
