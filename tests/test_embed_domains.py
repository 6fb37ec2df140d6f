"""Images under domains into stores: the model's own numbers, one pass, any parts, safe to kill."""

import hashlib
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pictures import jpeg
from test_embed import make_model
from vislang.data import domains as domains_module
from vislang.data.class_words import class_words, distinct_prompts, official_prompts
from vislang.data.decode import decode
from vislang.data.domains import apply_domains, open_domains
from vislang.data.sources import open_source
from vislang.embed import embed_domains, embed_texts
from vislang.errors import UserError
from vislang.resize import prepare_image
from vislang.store import open_store

SOME = "noop,blur,tilt,foggy,make_background_blue"
QUIET = {"device": "cpu", "precision": "fp32", "batch": 7, "unit_size": 4, "kinds": ("own",)}


def photos(root: Path) -> Path:
    """Two classes of six pictures; one is no picture, one too small for a background."""
    for i in range(12):
        path = root / ("cat" if i < 6 else "great_auk") / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (6, 7) if i == 4 else (40 + i, 52)
        path.write_bytes(b"no picture" if i == 8 else jpeg(i, *size))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_source(str(photos(tmp_path_factory.mktemp("photos"))))


@pytest.fixture(scope="module")
def model():
    return make_model(text="scratch_text")


@pytest.fixture(scope="module")
def quiet(model, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    return folder, embed_domains({"a": model}, source, SOME, folder, **QUIET)["a"]


def checksums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "finish.lock"
    }  # fmt: skip


def test_rows_are_what_the_model_says_of_the_pictures(quiet, model, source):
    store, domains = quiet[1], open_domains(SOME)
    assert store.domains == tuple(SOME.split(","))
    assert store.ids == [source[i].id for i in range(12)]
    assert store.labels.tolist() == [0] * 6 + [1] * 6
    preprocess = model.image.tower.preprocess
    for i in (0, 5, 11):
        sample = source[i]
        made = apply_domains(decode(sample.image), domains, seed=0, id=sample.id)
        with torch.no_grad():
            x = torch.stack([prepare_image(one, preprocess) for one in made])
            rows = model.eval().image(x).numpy()
        np.testing.assert_allclose(store.take([i] * 5, range(5)), rows, atol=2e-6)


def test_what_fails_has_a_reason_and_costs_nothing_else(quiet):
    store = quiet[1]
    gaps = {(gap.image, gap.domain): gap.reason for gap in store.missing}
    assert {pair for pair in gaps if pair[0] == 8} == {(8, name) for name in store.domains}
    assert "not an image" in gaps[8, "noop"]
    assert "too small" in gaps[4, "make_background_blue"]
    assert (4, "noop") not in gaps and np.flatnonzero(~store.complete).tolist() == [4, 8]
    assert len(open_store(store.folder).rejected) == len(gaps)
    assert store.take([4], [0]).any() and not store.take([8], [0]).any()


def test_prompts_are_embedded_once_each(quiet, model):
    store = quiet[1]
    texts = ["a blurry photo of a great auk", "a foggy photo of a great auk"]
    rows = embed_texts(model, texts, device="cpu").astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = unit.mean(0)
    np.testing.assert_allclose(
        store.prompts("own", "blur")[1], mean / np.linalg.norm(mean), atol=1e-6
    )
    np.testing.assert_array_equal(store.prompts("own", "blur"), store.prompts("own", "foggy"))
    stored = open_store(store.folder / "prompts").metadata["text"].to_pylist()
    assert len(stored) == len(set(stored)) == 2 * 5  # tilt, noop, blue and the two of blur
    with pytest.raises(UserError, match="without the official prompts"):
        store.prompts("official")


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_and_workers_change_no_bit(quiet, model, source, tmp_path, workers):
    for number in (2, 0, 1):
        stores = embed_domains({"a": model}, source, SOME, tmp_path, part=(number, 3),
                               workers=workers, **QUIET)  # fmt: skip
        assert bool(stores) == (number == 1), "only the last part has the whole"
    assert checksums(tmp_path) == checksums(quiet[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert embed_domains({"a": model}, source, SOME, tmp_path, **QUIET)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_several_models_from_one_pass_are_as_each_alone(
    quiet, model, source, tmp_path, monkeypatch
):
    from vislang.embed import domain_pictures

    seen = []
    apply = domain_pictures.each_domain
    monkeypatch.setattr(
        domain_pictures, "each_domain", lambda *a, **k: seen.append(k["id"]) or apply(*a, **k)
    )
    stores = embed_domains({"a": model, "b": make_model(1)}, source, SOME, tmp_path, **QUIET)
    assert len(seen) == 11, "each picture is made once for both models"
    for name in SOME.split(","):
        np.testing.assert_array_equal(stores["a"].rows(name)[:], quiet[1].rows(name)[:])
        assert (stores["b"].rows(name)[:4] != stores["a"].rows(name)[:4]).any()


def test_random_domains_follow_the_seed(quiet, model, source, tmp_path):
    store = embed_domains({"a": model}, source, SOME, tmp_path, seed=1, **QUIET)["a"]
    np.testing.assert_array_equal(store.rows("blur")[:], quiet[1].rows("blur")[:])
    assert (store.rows("tilt")[0] != quiet[1].rows("tilt")[0]).any()


def test_other_settings_are_refused_naming_them(quiet, model, source):
    with pytest.raises(UserError, match=r"seed \(0 -> 1\)"):
        embed_domains({"a": model}, source, SOME, quiet[0], seed=1, **QUIET)


def broken(pixels):
    return pixels.astype(np.float32)


def one_bad(pixels):
    if pixels.shape[0] == 42:
        raise ValueError("not this one")
    return pixels


def test_a_broken_function_leaves_rows_with_reasons(model, source, tmp_path):
    own = {f"test_embed_domains:{name}": [f"a {name} {{}}"] for name in ("broken", "one_bad")}
    store = embed_domains(
        {"a": model}, source, ["noop", *own], tmp_path, sentences=own, **QUIET
    )["a"]  # fmt: skip
    assert not store.present("broken").any()
    assert np.flatnonzero(~store.present("one_bad")).tolist() == [2, 8]
    assert any("one_bad: failed with ValueError: not this one" in g.reason for g in store.missing)


def test_one_class_no_classes_no_text_side(model, tmp_path):
    for i in range(3):
        (tmp_path / "x/cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"x/cat/{i}.jpg").write_bytes(jpeg(i))
    source = open_source(str(tmp_path / "x"))
    store = embed_domains({"a": model}, source, "noop,dim", tmp_path / "s", **QUIET)["a"]
    assert len(store) == 3
    blind = embed_domains(
        {"a": make_model(text="")}, source, "noop,dim", tmp_path / "t", **QUIET
    )["a"]  # fmt: skip
    np.testing.assert_array_equal(blind.rows("dim").shape, (3, 12))
    with pytest.raises(UserError, match=r"no classes|no prompts"):
        blind.prompts()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"part": (2, 2)}, "0 <= i < n"),
        ({"kinds": ("best",)}, "standard, own, official"),
        ({"models": {}}, "no models"),
        ({"models": {"../x": None}}, "becomes a folder"),
        ({"words": {"cat": []}}, "'cat' of .* has no words"),
        ({"words": {"dog": ["hound"]}}, "name the class 'dog'"),
        ({"batch": 0}, "batch must be"),
    ],
)
def test_what_cannot_be(model, source, tmp_path, options, says):
    given = {"models": {"a": model}} | QUIET | options
    with pytest.raises(UserError, match=says):
        embed_domains(given.pop("models"), source, "noop", tmp_path, **given)


# --- words -----------------------------------------------------------------------------------


def test_words_of_imagenet_are_all_its_synonyms(tmp_path):
    for wnid in ("n01443537", "n02012849", "n03126707"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / f"{wnid}_1.JPEG").write_bytes(jpeg(0))
    lines = ["n01443537\tgoldfish, Carassius  auratus", "n02012849\tcrane", "n03126707\tcrane"]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    source = open_source(str(tmp_path))
    words = class_words(source)
    assert words == (("goldfish", "Carassius auratus"), ("crane",), ("crane",))
    names = official_prompts(source, words)["names"]
    assert names[0] == "goldfish" and names[2] == "construction crane"
    assert class_words(source, {"n02012849": "wading crane"})[1] == ("wading crane",)
    assert len(distinct_prompts(["a {}", "the {}"], words)) == 6
    (tmp_path / "words.txt").write_text(lines[0])
    with pytest.raises(UserError, match=r"n02012849.* has no words"):
        class_words(open_source(str(tmp_path)))


def test_words_of_folders_are_their_names(source, tmp_path):
    assert class_words(source) == (("cat",), ("great auk",))
    (tmp_path / "w.tsv").write_text("cat\tcat, house cat\n")
    assert class_words(source, tmp_path / "w.tsv") == (("cat", "house cat"), ("great auk",))
    assert official_prompts(source, class_words(source))["names"] == ["cat", "great auk"]


def test_the_1860_words_and_55800_prompts_of_imagenet(test_data):
    """With WordNet's words.txt of the test data, where the golden files are at hand."""
    import gzip
    import json

    golden = test_data.parent / "golden/domains/data/class_words_1k.json"
    packed = test_data / "tiny-imagenet-200-subset/words_full.txt.gz"
    if not golden.is_file():
        pytest.skip(f"needs {golden}")
    from vislang.data.labels import read_words

    theirs = json.loads(golden.read_text())
    text = gzip.decompress(packed.read_bytes()).decode()
    ours = read_words(_written(text))
    assert {wnid: ours[wnid] for wnid in theirs} == theirs
    templates = [t for d in domains_module.DOMAINS.values() for t in d.templates]
    assert sum(map(len, theirs.values())) * len(templates) == 55_800
    distinct = distinct_prompts(templates, tuple(map(tuple, theirs.values())))
    assert len(distinct) == len({w for some in theirs.values() for w in some}) * 27


def _written(text: str) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "words.txt"
    path.write_text(text)
    return path


def done_units(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.json") if not path.name.startswith(".")]


# --- kills -----------------------------------------------------------------------------------


def embed_part(root, folder, part, ready):
    torch.set_num_threads(1)
    model, source = make_model(), open_source(str(root))
    ready.set()
    embed_domains({"a": model, "b": model}, source, SOME, folder, part=part,
                  **QUIET | {"unit_size": 1})  # fmt: skip


def test_two_parts_killed_three_times_end_as_one_left_alone(tmp_path, monkeypatch):
    root = photos(tmp_path / "photos")
    source, model = open_source(str(root)), make_model()
    options = QUIET | {"unit_size": 1}
    begin = time.perf_counter()
    embed_domains({"a": model, "b": model}, source, SOME, tmp_path / "alone", **options)
    quiet_s = time.perf_counter() - begin
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    context.set_forkserver_preload(["test_embed_domains"])
    rng, kills = random.Random(1), 0
    for _ in range(30):
        ready = [context.Event() for _ in range(2)]
        children = [
            context.Process(target=embed_part, args=(root, tmp_path / "shot", (i, 2), ready[i]))
            for i in range(2)
        ]
        for child in children:
            child.start()
        assert all(event.wait(120) for event in ready)
        # One more unit on disk, then a moment: each round goes on, none runs to the end.
        seen, deadline = len(done_units(tmp_path / "shot")), time.monotonic() + 120
        while len(done_units(tmp_path / "shot")) == seen and time.monotonic() < deadline:
            time.sleep(0.002)
            if all(child.exitcode is not None for child in children):
                break
        time.sleep(rng.uniform(0.0, 0.02) * quiet_s)
        for child in children:
            child.kill()
            child.join()
        kills += any(child.exitcode != 0 for child in children)
        if kills >= 3 or all(child.exitcode == 0 for child in children):
            break
    assert kills >= 3
    stores = {}
    for i in range(2):
        stores |= embed_domains(
            {"a": model, "b": model}, source, SOME, tmp_path / "shot", part=(i, 2), **options
        )
    assert checksums(tmp_path / "shot") == checksums(tmp_path / "alone")
    stores["b"].images.verify()
