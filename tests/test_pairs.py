"""Pairs as a source: which neighbour is drawn, what a batch holds, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from layouts import add_csv, add_files
from vislang.data.batches import Batches
from vislang.data.pairs import PairTable
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.preprocess import Preprocess
from vislang.recipes import find_config
from vislang.recipes.tiny import tiny

N, K = 12, 3


@pytest.fixture
def world(tmp_path):
    """Twelve plain pictures, each of its own grey; sample i has the neighbours i+1, i+2, i+3."""
    from PIL import Image

    rows = [["image", "caption"]]
    for i in range(N):
        add_files(tmp_path / "images", {f"{i}.png": b""})
        Image.new("RGB", (24, 24), (20 * i,) * 3).save(tmp_path / "images" / f"{i}.png")
        rows += [[f"{i}.png", f"caption {i} {c}"] for c in "ab"]
    spec = str(add_csv(tmp_path / "t.csv", rows))
    options = {"images_root": str(tmp_path / "images")}
    source = open_source(spec, **options)
    about = {"source": {"spec": spec, "options": options, "name": source.name,
                        "fingerprint": source.fingerprint, "samples": N}}  # fmt: skip
    start = np.repeat(np.arange(N), K)
    step = np.tile(np.arange(1, K + 1), N)
    similarity = 1 - step / 10 - start / 1000
    table = PairTable.sorted(start, (start + step) % N, similarity, about)
    table.write(tmp_path / "nn.parquet")
    return tmp_path / "nn.parquet", source, table


def batches(source, epoch=0, **options):
    made = Batches(
        source, 4, needs=options.pop("needs", ("image", "image_2", "text", "text_2")), seed=5,
        image=Preprocess(size=(8, 8)), augment="global_crop", tokenizer=letters, **options,
    )  # fmt: skip
    try:
        return list(made.start(epoch))
    finally:
        made.close()


def letters(texts):
    return torch.tensor([[int(word) for word in t.split() if word.isdigit()] for t in texts])


def greys(batch, key):
    return (batch[key].float().mean((1, 2, 3)) / 20).round().long()


def test_a_batch_holds_a_sample_and_its_neighbour(world):
    path, *_ = world
    seen = set()
    for epoch in range(6):
        for batch in batches(open_source(str(path)), epoch):
            first, other = greys(batch, "image"), greys(batch, "image_2")
            assert (first == batch["index"]).all()
            step = (other - first) % N
            assert ((step >= 1) & (step <= K)).all()
            assert (batch["text"].squeeze(1) == first).all()
            assert (batch["text_2"].squeeze(1) == other).all()
            assert batch["id"] == [f"{i}.png" for i in first.tolist()]
            seen |= set(step.tolist())
    assert seen == {1, 2, 3}  # another neighbour in another epoch


def test_the_draw_depends_on_seed_epoch_and_index_alone(world):
    path, *_ = world
    source = open_source(str(path))
    whole, workers = batches(source, 1), batches(source, 1, workers=2)
    again, other = batches(source, 1), batches(source, 2)
    for a, b, c in zip(whole, workers, again):
        assert torch.equal(a["image_2"], b["image_2"]) and torch.equal(a["image_2"], c["image_2"])
    draw = lambda got: {  # noqa: E731
        int(i): int(g) for b in got for i, g in zip(b["index"], greys(b, "image_2"))
    }
    assert draw(whole) != draw(other)


def test_the_first_view_is_what_it_is_without_pairs(world):
    """The neighbour is drawn from randomness of its own."""
    path, source, _ = world
    needs = ("image", "text")
    for a, b in zip(batches(open_source(str(path)), needs=needs), batches(source, needs=needs)):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["caption"], b["caption"])


def test_odd_views_and_crops_are_the_samples_own(world):
    path, *_ = world
    needs = ("image", "image_2", "image_3", "image_4")
    for batch in batches(open_source(str(path)), needs=needs):
        assert (greys(batch, "image_3") == greys(batch, "image")).all()
        assert (greys(batch, "image_4") == greys(batch, "image_2")).all()


def test_k_and_threshold_choose_pairs_and_samples(world):
    path, *_ = world
    nearest = open_source(str(path), k=1)
    rng = np.random.default_rng(0)
    assert {nearest.partner(0, rng).id for _ in range(20)} == {"1.png"}
    few = open_source(str(path), threshold=0.8951)  # of the first five samples the nearest
    assert [few[i].id for i in range(len(few))] == [f"{i}.png" for i in range(5)]
    with pytest.raises(UserError, match=r"similarity of 0\.95 or more; the highest is 0\.900"):
        open_source(str(path), threshold=0.95)
    with pytest.raises(UserError, match="k must be 1 or more"):
        open_source(str(path), k=-1)
    assert open_source(str(path), k=1).fingerprint != open_source(str(path)).fingerprint


def test_a_neighbour_that_cannot_be_read_is_a_rejected_row(world, tmp_path):
    path, _, table = world
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    source = open_source(table.about["source"]["spec"], **table.about["source"]["options"])
    about = {"source": table.about["source"] | {"fingerprint": source.fingerprint}}
    PairTable.sorted([2, 5], [3, 6], [0.9, 0.9], about).write(path)
    made = Batches(open_source(str(path)), 2, needs=("image", "image_2"), augment="global_crop",
                   image=Preprocess(size=(8, 8)))  # fmt: skip
    (batch,) = list(made)
    assert batch["id"] == ["5.png"] and [row.id for row in batch["rejected"]] == ["3.png"]


def test_a_table_for_another_revision_is_refused(world, tmp_path):
    path, *_ = world
    with open(tmp_path / "t.csv", "a") as file:
        file.write("0.png,one more\n")
    with pytest.raises(UserError, match="another revision of its source: there 't' with 12"):
        open_source(str(path))
    PairTable.sorted([0], [1], [0.5], {}).write(path)
    with pytest.raises(UserError, match="does not say which source"):
        open_source(str(path))


def test_a_pair_takes_few_bytes(world, tmp_path, monkeypatch):
    """One neighbour for each sample is the dearest case; the benchmark has twelve million."""
    from vislang.data.sources import pairs

    _, source, table = world
    monkeypatch.setattr(pairs, "_open", lambda *_: source)
    rows = np.arange(200_000)
    about = table.about
    PairTable.sorted(rows, (rows + 1) % N, rows % 2 / 2 + 0.5, about).write(
        tmp_path / "big.parquet"
    )
    opened = open_source(f"pairs:{tmp_path / 'big.parquet'}")
    held = sum(v.nbytes for v in vars(opened).values() if isinstance(v, np.ndarray))
    assert held / len(rows) == opened.bytes_per_pair <= 32 and len(opened) == len(rows)


# -- recipes -------------------------------------------------------------------------------------

COUNTS = {  # numbers of the released code: all, and what must not decay (norms)
    "simclr": (32_166_976, 61_312),
    "lgsimclr": (32_166_976, 61_312),
    "simsiam": (38_201_408, 66_432),
    "lgsimsiam": (38_201_408, 66_432),
    "lgslip": (96_381_505, 142_208 + 77 * 512 + 1),  # and positions and scale, which theirs decays
}


@pytest.mark.parametrize("name", COUNTS)
def test_sizes_and_decay_are_those_of_the_paper(name):
    from vislang.models.build import build_model
    from vislang.objectives.build import build_objective
    from vislang.train.optim import undecayed_names

    config = find_config(name)
    with torch.device("meta"):
        model = build_model(config.model, weights=False)
        objective = build_objective(config.objective, model.width, model.image.tower.width, 100)
    parts = [(m, n, p) for m in (model, objective) for n, p in m.named_parameters()]
    undecayed = sum(p.numel() for m, n, p in parts if n in undecayed_names(m))
    assert (sum(p.numel() for *_, p in parts), undecayed) == COUNTS[name]


def test_a_language_guided_recipe_asks_for_its_pairs():
    for name in ("lgsimclr", "lgsimsiam", "lgslip"):
        config = find_config(name)
        assert config.data.augment == "global_crop"
        with pytest.raises(UserError, match="'pairs' needs a path"):
            open_source(config.data.train)


TWO_VIEWS = ("lgsimclr", "lgsimsiam", "lgslip", "byol", "vicreg", "slip")


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_recipes_of_two_views_train_on_pairs(name, tmp_path):
    from vislang.train import train

    digits = open_source("digits:train")
    rows = np.arange(64)
    about = {"source": {"spec": "digits:train", "options": {}, "fingerprint": digits.fingerprint}}
    PairTable.sorted(rows, rows + 64, np.full(64, 0.9), about).write(tmp_path / "nn.parquet")
    config = tiny(find_config(name))
    data = replace(config.data, train=f"pairs:{tmp_path / 'nn.parquet'}", train_options={})
    train(replace(config, data=data, run=replace(config.run, evaluations=())), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("*/done.json"))
