"""Embedding into a store: the same numbers as the model gives, resumable, safe against SIGKILL."""

import hashlib
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vislang.config import ModelConfig, TowerConfig
from vislang.data.decode import Limits
from vislang.data.sample import BadSample
from vislang.data.sources import open_source
from vislang.data.transforms import prepare_sample
from vislang.embed import Embedder, embed_source, embed_texts
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.towers import scratch_text, scratch_vit  # noqa: F401  the children want them
from vislang.store import open_store

WIDTHS = {"width": 16, "depth": 1, "heads": 2}


def make_model(seed=0, text="scratch_text"):
    torch.manual_seed(seed)
    return build_model(
        ModelConfig(
            TowerConfig("scratch_vit", {"image_size": 16, "patch": 8, **WIDTHS}),
            TowerConfig(text, {"context": 40, **WIDTHS} if text else {}),
            width=12,
        )
    )


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def digits():
    return open_source("digits:test")


class Part:
    """The first samples of a source, some of them bad, in shards of any size."""

    def __init__(self, source, n=30, bad=(), bare=(), shard=7):
        self.source, self.n, self.bad, self.bare, self.shard = source, n, bad, bare, shard
        self.name, self.gives, self.classes = "part", source.gives, source.classes
        self.fingerprint = f"{source.fingerprint}-{n}-{bad}-{bare}"

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        from dataclasses import replace

        sample = self.source[index]
        if index in self.bad:
            raise BadSample(sample.id, "broken: by the test", f"row {index}")
        return replace(sample, texts=()) if index in self.bare else sample

    def shards(self):
        return [range(at, min(at + self.shard, self.n)) for at in range(0, self.n, self.shard)]


def test_the_store_holds_what_the_model_says(model, digits, tmp_path):
    store = embed_source(
        model, Part(digits), tmp_path / "s", what=("image", "text", "features"), batch_size=8,
        device="cpu", precision="fp32", unit_size=5,
    )  # fmt: skip
    assert len(store) == 30
    assert len(store.text) == 150
    assert store.metadata["index"].to_pylist() == list(range(30))
    assert store.metadata["id"][3].as_py() == digits[3].id
    assert store.metadata["label"][3].as_py() == digits[3].labels[0]
    assert store.metadata["caption"][3].as_py() == digits[3].texts[0]
    tower = model.image.tower
    with torch.no_grad():
        prepared = [prepare_sample(digits[i], Limits(), tower.preprocess) for i in range(30)]
        pixels = torch.stack(prepared)
        features = model.image.features(pixels)
        image = model.image(pixels)
        row = store.text_metadata["image_row"].to_pylist().index(7)
        text = model.text(model.text.tower.tokenizer([digits[7].texts[0]]))
    assert np.abs(np.asarray(store.image) - image.numpy()).max() < 1e-5
    assert np.abs(np.asarray(store.features) - features.numpy()).max() < 1e-5
    assert np.abs(store.text[row] - text.numpy()[0]).max() < 1e-5
    assert not model.training or model.image.training == model.training
    store.verify()


def test_bad_samples_are_rows_and_captionless_ones_stay(model, digits, tmp_path):
    source = Part(digits, n=12, bad=(2, 8), bare=(3,))
    store = embed_source(model, source, tmp_path / "s", device="cpu", batch_size=4)
    assert len(store) == 10
    assert [r[1] for r in store.rejected] == ["broken: by the test"] * 2
    assert store.rejected[0] == (digits[2].id, "broken: by the test", "row 2")
    assert store.metadata["index"].to_pylist() == [0, 1, 3, 4, 5, 6, 7, 9, 10, 11]
    assert store.metadata["caption"][2].as_py() is None
    assert 2 not in store.text_metadata["image_row"].to_pylist()
    assert len(store.text) == 45


def test_a_source_of_which_nothing_can_be_used(model, digits, tmp_path):
    store = embed_source(model, Part(digits, n=3, bad=(0, 1, 2)), tmp_path / "s", device="cpu")
    assert store.image.shape == (0, 12)
    assert store.text.shape == (0, 12)
    assert len(store.rejected) == 3


def test_texts_alone_need_no_image_side(digits, tmp_path):
    store = embed_source(
        make_model(), Part(digits, n=9, bad=(1,)), tmp_path / "s", what=("text",), device="cpu"
    )
    assert store.image is None
    assert len(store) == 8
    assert len(store.text) == 40


def test_each_distinct_text_is_embedded_once(model, monkeypatch):
    seen = []
    tokenizer = model.text.tower.tokenizer
    count = lambda texts: seen.extend(texts) or tokenizer(texts)  # noqa: E731
    monkeypatch.setattr(model.text.tower, "tokenizer", count)
    texts = ["b", "aa", "b", "", "aa"]
    rows = embed_texts(model, texts, batch_size=2, device="cpu")
    assert sorted(seen) == ["", "aa", "b"]
    assert rows.shape == (5, 12)
    assert (rows[0] == rows[2]).all()
    assert not (rows[0] == rows[1]).all()
    assert embed_texts(model, [], device="cpu").shape == (0, 12)
    with pytest.raises(UserError, match="must be strings"):
        embed_texts(model, ["a", None], device="cpu")


def test_modes_are_put_back(model):
    model.train()
    model.text.tower.eval()
    embed_texts(model, ["a"], device="cpu")
    assert model.training
    assert not model.text.tower.training
    model.text.tower.train()


def checksums(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".npy", ".parquet")
    }


def test_going_on_does_only_what_is_left(model, digits, tmp_path):
    source = Part(digits, n=21)
    whole = tmp_path / "whole"
    embed_source(model, source, whole, device="cpu", batch_size=4)
    part = tmp_path / "part"
    calls = []

    def interrupt(done, of):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_source(model, source, part, device="cpu", batch_size=4, on_progress=interrupt)
    with pytest.raises(UserError, match="interrupted"):
        open_store(part)
    calls.clear()
    embed_source(
        model, source, part, device="cpu", batch_size=4, on_progress=lambda d, n: calls.append(d)
    )
    assert calls == [7]  # one unit of three was left
    assert checksums(part) == checksums(whole)


def test_other_settings_are_refused(model, digits, tmp_path):
    source = Part(digits, n=8)
    embed_source(model, source, tmp_path / "s", device="cpu")
    for changed in (
        {"batch_size": 3},
        {"dtype": "float16"},
        {"unit_size": 2},
        {"what": ("image",)},
    ):
        with pytest.raises(UserError, match=f"other settings: {next(iter(changed))}"):
            embed_source(model, source, tmp_path / "s", device="cpu", **changed)
    with pytest.raises(UserError, match="other settings: model"):
        embed_source(make_model(1), source, tmp_path / "s", device="cpu")
    with pytest.raises(UserError, match=r"other settings: samples .* source"):
        embed_source(model, Part(digits, n=9), tmp_path / "s", device="cpu")


def test_processes_write_the_same_store(digits, tmp_path):
    from vislang.models.pretrained import save_model

    built = make_model()
    save_model(built, built.config, tmp_path / "model")
    given = {"device": "cpu", "batch_size": 32, "unit_size": 125, "precision": "fp32"}
    one = embed_source(tmp_path / "model", "digits:test", tmp_path / "one", **given)
    two = embed_source(tmp_path / "model", "digits:test", tmp_path / "two", **given,
                       engine="processes", processes=2)  # fmt: skip
    assert len(one) == len(two) == 500
    assert checksums(one.folder) == checksums(two.folder)


def test_wrong_requests_are_named(model, digits, tmp_path):
    image_only = make_model(text="")
    for call, match in (
        (lambda: embed_source(image_only, digits, tmp_path / "a"), "no text side"),
        (
            lambda: embed_source(model, digits, tmp_path / "b", what=("images",)),
            "any of image, text",
        ),
        (lambda: embed_source(model, digits, tmp_path / "c", what=()), "what is empty"),
        (
            lambda: embed_source(model, digits, tmp_path / "d", engine="processes"),
            "give both as text",
        ),
        (lambda: embed_source(model, digits, tmp_path / "e", dtype="int8"), "float32 or float16"),
        (lambda: embed_source(model, digits, tmp_path / "f", unit_size=0), "unit_size"),
        (lambda: Embedder(model, digits, batch_size=0), "batch_size"),
    ):
        with pytest.raises(UserError, match=match):
            call()
    textless = Part(digits)
    textless.gives = frozenset({"image"})
    with pytest.raises(UserError, match="its text cannot be embedded"):
        Embedder(model, textless)


def test_a_model_of_nan_is_no_store(digits, tmp_path):
    broken = make_model()
    with torch.no_grad():
        next(broken.image.head.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"not finite.*precision fp32"):
        embed_source(broken, Part(digits, n=4), tmp_path / "s", device="cpu")


def embed_in_a_child(folder, ready):
    model, source = make_model(), Part(open_source("digits:test"), n=60, bad=(5,), shard=5)
    ready.set()
    embed_source(model, source, folder, device="cpu", batch_size=4)


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_torn(model, digits, tmp_path, monkeypatch):
    """SIGKILL at random moments until it is done: no torn file, and the bytes of one quiet run."""
    source = Part(digits, n=60, bad=(5,), shard=5)
    begin = time.perf_counter()
    embed_source(model, source, tmp_path / "quiet", device="cpu", batch_size=4)
    quiet_s = time.perf_counter() - begin
    # A server that has imported torch once forks each child: a fresh interpreter takes seconds.
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    context.set_forkserver_preload(["test_embed"])
    rng, kills, folder = random.Random(0), 0, tmp_path / "0"
    for attempt in range(40):
        ready = context.Event()
        child = context.Process(target=embed_in_a_child, args=(folder, ready))
        child.start()
        assert ready.wait(120)
        child.join(rng.uniform(0.0, 0.7 * quiet_s))
        child.kill()
        child.join()
        for path in [*folder.rglob("*.npy"), *folder.rglob("*.parquet"), *folder.rglob("*.json")]:
            if not path.name.startswith("."):
                assert is_whole(path), path
        kills += child.exitcode != 0
        if child.exitcode == 0 or kills in (4, 8):  # whole, or several kills deep: finish it
            embed_source(model, source, folder, device="cpu", batch_size=4)
            assert checksums(folder) == checksums(tmp_path / "quiet")
            open_store(folder).verify()
            assert not list(folder.rglob("*.tmp"))
            folder = tmp_path / str(attempt + 1)
        if kills >= 8:
            break
    assert kills >= 8


def is_whole(path):
    from vislang.files import read_json
    from vislang.store.rows import read_header

    {".npy": read_header, ".parquet": pq.read_metadata, ".json": read_json}[path.suffix](path)
    return True
