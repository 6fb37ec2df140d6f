"""Each evaluation on embeddings made by hand: golden numbers, conventions, sharp edges."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vislang.data.prompts import SETS, fill, read_prompts
from vislang.errors import UserError
from vislang.evaluate.cluster import Clustering
from vislang.evaluate.knn import NearestNeighbours
from vislang.evaluate.overview import Overview
from vislang.evaluate.requests import Embeddings
from vislang.evaluate.retrieval import Retrieval
from vislang.evaluate.zeroshot import ZeroShot, classifier
from vislang.metrics.features import unit
from vislang.metrics.flatten import flatten
from vislang.metrics.rank import retrieval, retrieval_ranks

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")


class Named:
    """A source of which only its description is asked."""

    name = "named"

    def __init__(self, classes=("cat", "sea_lion"), gives=("image", "text", "label"), templates=()):
        self.classes, self.gives, self.templates = tuple(classes), frozenset(gives), templates


def ids(n):
    return [f"s{i}" for i in range(n)]


# -- zero-shot --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalise", "weights", "accuracy"),
    [(True, "classifier_protoclip", "protoclip_top1"), (False, "classifier_itra", "itra_acc")],
)
def test_zero_shot_golden_both_conventions(normalise, weights, accuracy):
    texts, images = GOLDEN["zeroshot/text_emb"], GOLDEN["zeroshot/images"]
    label = GOLDEN["zeroshot/labels"].astype(int)
    assert np.abs(classifier(texts, normalise).T - GOLDEN[f"zeroshot/{weights}"]).max() < 1e-12
    templates = ["a {}", "b {}", "c {}"]
    names = [f"class {i}" for i in range(6)]
    evaluation = ZeroShot(templates, normalise)
    asked = evaluation.requests(Named(names)).texts
    given = Embeddings(
        ids(40), label, tuple(names), images=images,
        prompts={text: row for row, text in enumerate(asked)},
        prompt_rows=np.stack([texts[i, t] for i in range(6) for t in range(3)]),
    )  # fmt: skip
    scores = evaluation.score(given)
    assert 100 * scores.values["accuracy"].value == pytest.approx(
        float(GOLDEN[f"zeroshot/{accuracy}"])
    )
    if normalise:
        top5 = float(GOLDEN["zeroshot/protoclip_top5"])
        assert 100 * scores.values["accuracy@5"].value == pytest.approx(top5)
    assert np.sum(scores.confusion["counts"]) == 40
    assert len(scores.tables["per_class"]["rows"]) == 6


def test_zero_shot_asks_for_every_name_in_every_template():
    asked = ZeroShot(["a {}", "the {}"]).requests(Named()).texts
    assert asked == ("a cat", "the cat", "a sea lion", "the sea lion")


def test_zero_shot_refuses_sources_without_labels_or_names():
    with pytest.raises(UserError, match=r"needs labels.*retrieval and overview do without"):
        ZeroShot().requests(Named(gives=("image", "text")))
    with pytest.raises(UserError, match="names of the classes"):
        ZeroShot().requests(Named(classes=()))
    with pytest.raises(UserError, match=r"3 names.*2 classes"):
        ZeroShot(classes=["a", "b", "c"]).requests(Named())
    assert ZeroShot(classes=["x", "y"]).requests(Named()).texts == (
        "a photo of a x.", "a photo of a y."
    )  # fmt: skip


def test_samples_without_a_label_are_left_out():
    evaluation = ZeroShot(["{}"])
    asked = evaluation.requests(Named(("a", "b"))).texts
    given = Embeddings(
        ids(3), np.array([0, -1, 1]), ("a", "b"), images=np.eye(2)[[0, 0, 1]],
        prompts={t: i for i, t in enumerate(asked)}, prompt_rows=np.eye(2),
    )  # fmt: skip
    scores = evaluation.score(given)
    assert (scores.n, scores.values["accuracy"].value) == (2, 1.0)
    none = Embeddings(ids(1), np.array([-1]), ("a", "b"), np.eye(2)[:1],
                      prompts=given.prompts, prompt_rows=np.eye(2))  # fmt: skip
    with pytest.raises(UserError, match="no sample with a label"):
        evaluation.score(none)


# -- prompts ----------------------------------------------------------------------------------


def test_prompt_files(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeff# ours\na {} here\n\n  the {} \na {} here\n", encoding="utf-8")
    assert read_prompts(str(file)) == ("a {} here", "the {}")
    file.write_text("a photo\n")
    with pytest.raises(UserError, match=r"'a photo' must hold \{\} exactly once"):
        read_prompts(str(file))
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="no template"):
        read_prompts(str(file))
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="UTF-8"):
        read_prompts(str(file))
    with pytest.raises(UserError, match="Did you mean 'simple'"):
        read_prompts("simpel")


def test_prompt_sets():
    assert read_prompts("auto") == SETS["simple"]
    assert read_prompts("auto", ["the {}"]) == ("the {}",)
    with pytest.raises(UserError, match="no templates of its own"):
        read_prompts("source")
    assert read_prompts("just {}") == ("just {}",)
    assert fill("{}!", "polar_bear") == "polar bear!"
    for templates in SETS.values():
        assert all(template.count("{}") == 1 for template in templates)


def test_open_clip_prompts_come_from_its_package():
    if find_spec("open_clip") is None:
        pytest.skip("open_clip is not installed")
    templates = read_prompts("openai_imagenet")
    assert len(templates) == 80
    assert len(read_prompts("simple_imagenet")) == 7
    assert templates[1] == "a photo of many {}."


# -- retrieval --------------------------------------------------------------------------------


def paired(n=12, per=3, noise=0.6, seed=0, texts=None):
    rng = np.random.default_rng(seed)
    image = unit(rng.standard_normal((n, 16)))
    owner = np.repeat(np.arange(n), per)
    text = unit(image[owner] + noise * rng.standard_normal((len(owner), 16)))
    texts = texts or [f"text {i}" for i in range(len(owner))]
    return Embeddings(
        ids(n), np.full(n, -1), images=3 * image, captions=0.1 * text, caption_texts=texts,
        caption_owner=owner,
    )  # fmt: skip


def test_retrieval_golden_with_intervals():
    want = {k.removeprefix("retrieval/ragged/"): GOLDEN[k] for k in GOLDEN.files if "ragged" in k}
    given = Embeddings(
        ids(12), np.full(12, -1), images=want["image"], captions=want["text"],
        caption_texts=[f"t{i}" for i in range(66)], caption_owner=want["owner"].astype(int),
    )  # fmt: skip
    scores = Retrieval().score(given)
    for name in ("image_to_text@1", "text_to_image@5", "mean_recall"):
        got = scores.values[name]
        assert 100 * got.value == pytest.approx(float(want[name]))
        assert got.low < got.value < got.high
        assert got.n == 12
    assert scores.values["text_to_image@1"].method == "bootstrap over groups 95%"


def test_retrieval_examples_are_right_and_wrong():
    scores = Retrieval(ks=(1, 5)).score(paired())
    kinds = {(example["kind"], example["right"]) for example in scores.examples}
    assert ("image_to_text", True) in kinds
    assert ("text_to_image", False) in kinds
    for example in scores.examples:
        best = example["answers"][0]
        assert best["right"] is example["right"]
        assert (example["rank"] == 1) is example["right"]
        assert ("id" in example["query"]) is (example["kind"] == "image_to_text")
        assert ("text" in best) is (example["kind"] == "image_to_text")
        assert [a["score"] for a in example["answers"]] == sorted(
            (a["score"] for a in example["answers"]), reverse=True
        )


def test_images_without_captions_are_left_out_and_said():
    given = paired(6, 2)
    extra = np.concatenate([np.asarray(given.images), np.eye(16)[:2]])
    more = Embeddings(
        ids(8), np.full(8, -1), images=extra, captions=given.captions,
        caption_texts=given.caption_texts, caption_owner=given.caption_owner,
    )  # fmt: skip
    one, two = Retrieval(ks=(1,)).score(given), Retrieval(ks=(1,)).score(more)
    assert one.values == two.values
    assert two.notes == ["2 images without a caption were left out."]


def test_ks_beyond_the_candidates_are_left_out_and_said():
    scores = Retrieval().score(paired(6, 1))
    assert "image_to_text@5" in scores.values
    assert "image_to_text@10" not in scores.values
    assert "10" in scores.notes[0]
    with pytest.raises(UserError, match="more than 5 images"):
        Retrieval(ks=(5,)).score(paired(3, 1))


def test_captions_shared_by_images_get_both_countings():
    # Two kinds of image, each with one caption that all of its kind share.
    kind = np.arange(12) % 2
    image = np.eye(4)[kind]
    given = Embeddings(
        ids(12), kind, images=image, captions=image, caption_texts=["even", "odd"] * 6,
        caption_owner=np.arange(12),
    )  # fmt: skip
    scores = Retrieval(ks=(1,)).score(given)
    assert scores.values["image_to_text@1"].value == 0  # every other of its kind is level
    assert scores.values["same_text_image_to_text@1"].value == 1
    assert scores.values["same_text_text_to_image@1"].value == 1
    assert "100.0% of the captions" in scores.notes[0]
    assert "same_text_image_to_text@1" not in Retrieval(ks=(1,)).score(paired()).values


def test_folds_and_first_captions_are_the_published_protocols():
    given = paired(12, 3, noise=1.5)
    image, text, owner = given.images, np.asarray(given.captions), given.caption_owner
    folds = []
    for first in (0, 5):  # by hand: two folds of five images with their first two captions
        mine = [m for m in range(36) if owner[m] in range(first, first + 5) and m % 3 < 2]
        folds.append(retrieval(
            unit(image[first : first + 5]), unit(text[mine]), owner[mine] - first, (1, 2)
        ))  # fmt: skip
    scores = Retrieval(ks=(1, 2), captions=2, fold=5).score(given)
    for name in folds[0]:
        expected = (folds[0][name] + folds[1][name]) / 2
        assert scores.values[name].value == pytest.approx(expected), name
    assert scores.n == 10 and len(scores.per_sample["text_to_image@1"]["values"]) == 20
    assert "12 captions beyond the first 2" in scores.notes[0]
    assert "2 images do not fill a fold of 5" in scores.notes[1]
    rank = retrieval_ranks(unit(image), unit(text), owner)
    whole = Retrieval(ks=(1, 2)).score(given).values
    assert whole["text_to_image_mean_rank"].value == pytest.approx(rank.text_to_image.mean() + 1)
    with pytest.raises(UserError, match="a fold has 13 images, but there are only 12"):
        Retrieval(fold=13).score(given)
    kept = np.flatnonzero((owner != 4) | (np.arange(36) % 3 < 1))  # one image has one caption
    ragged = replace(
        given, captions=text[kept], caption_owner=owner[kept],
        caption_texts=[given.caption_texts[m] for m in kept],
    )  # fmt: skip
    assert "1 images have fewer than 2 captions." in Retrieval(captions=2).score(ragged).notes


def test_retrieval_without_any_caption_is_refused():
    with pytest.raises(UserError, match="no sample has both"):
        Retrieval().score(Embeddings(ids(2), np.zeros(2, int), images=np.eye(2)))
    with pytest.raises(UserError, match="needs captions"):
        Retrieval().requests(Named(gives=("image", "label")))
    with pytest.raises(UserError, match="ks must be"):
        Retrieval(ks=(0,))


# -- neighbours and clusters ------------------------------------------------------------------


def blobs(n=120, k=4, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % k)
    rows = rng.standard_normal((k, 12))[label] + spread * rng.standard_normal((n, 12))
    names = tuple(f"kind {i}" for i in range(k))
    return Embeddings(ids(n), label, names, images=rows, features=rows)


def test_neighbours_by_hand():
    train = Embeddings(ids(3), np.array([0, 1, 1]), ("a", "b"),
                       features=np.array([[1.0, 0.1], [0.6, 0.8], [0.6, 0.8]]))  # fmt: skip
    test = Embeddings(
        ["q"], np.array([0]), ("a", "b"), features=np.array([[1.0, 0.0]]), train=train
    )
    scores = NearestNeighbours(k=3).score(test)
    assert scores.values["accuracy"].value == 1  # weighted: the nearest one has the say
    assert scores.values["plain_accuracy"].value == 0  # one against two
    assert "k was 20" in " ".join(NearestNeighbours().score(test).notes)


def test_neighbours_divide_one_source():
    scores = NearestNeighbours(k=5).score(blobs())
    assert scores.values["accuracy"].value == 1
    assert scores.n == 24
    assert any("stratified 80% / 20%" in note for note in scores.notes)
    assert {e["kind"] for e in scores.examples} == {"image_to_class", "image_to_image"}


def test_clusters_of_clear_classes():
    scores = Clustering().score(blobs())
    assert {name: v.value for name, v in scores.values.items()} == pytest.approx(
        {"ami": 1, "nmi": 1, "ari": 1}
    )
    table = np.array([row[1:] for row in scores.tables["clusters"]["rows"]])
    assert (table.sum(1) == 30).all()
    assert (np.sort(table, axis=1)[:, :-1] == 0).all()
    assert (
        Clustering().score(blobs(spread=2.0)).values == Clustering().score(blobs(spread=2.0)).values
    )


def test_collapsed_features_are_scored_not_fatal():
    flat = Embeddings(ids(40), np.arange(40) % 4, (), np.ones((40, 6)), np.ones((40, 6)))
    scores = Clustering().score(flat)
    assert scores.values["ami"].value == pytest.approx(0, abs=1e-9)
    assert any("Only 1 of 4 clusters" in note for note in scores.notes)
    assert NearestNeighbours().score(flat).values["accuracy"].value <= 0.5
    assert Overview(map_points=20).score(flat).map["method"] == "PCA"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NearestNeighbours(k=0), "knn: k"),
        (lambda: NearestNeighbours(temperature=0), "temperature"),
        (lambda: NearestNeighbours(space="x"), "knn: space"),
        (lambda: Clustering(clusters=0), "clusters"),
        (lambda: Overview(map="umap"), "map must be"),
        (lambda: Overview(most=1), "most"),
        (
            lambda: Clustering().score(Embeddings(ids(2), np.zeros(2, int), (), np.eye(2))),
            "two class",
        ),
        (lambda: blobs(4, 4).with_train(), "every class has one sample"),
    ],
)
def test_wrong_options_are_named(make, match):
    with pytest.raises(UserError, match=match):
        make()


# -- overview ---------------------------------------------------------------------------------


def test_overview_has_numbers_cosines_and_a_map():
    given = paired(40, 2)
    scores = Overview(map_points=30, pairs=5).score(given)
    for name in ("modality_gap", "alignment", "image_uniformity", "text_dimensions"):
        value = scores.values[name]
        assert value.low < value.value < value.high, name
    assert np.shape(scores.cosine["matrix"]) == (5, 5)
    assert scores.map["method"] == "t-SNE"
    assert len(scores.map["x"]) == len(scores.map["ids"]) == 30
    again = Overview(map_points=30, pairs=5).score(given)
    assert again.map == scores.map
    assert again.values == scores.values
    row = given.ids.index(scores.cosine["ids"][2])
    column = given.caption_texts.index(scores.cosine["texts"][2])
    want = unit(given.images[[row]]) @ unit(given.captions[[column]]).T
    assert scores.cosine["matrix"][2][2] == pytest.approx(want.item(), abs=1e-4)


def test_overview_without_captions_takes_class_names():
    given = blobs()
    texts = tuple(fill(SETS["simple"][0], name) for name in given.classes)
    assert Overview().requests(Named(given.classes, ("image", "label"))).texts == texts
    given = Embeddings(given.ids, given.label, given.classes, given.images,
                       prompts={t: i for i, t in enumerate(texts)},
                       prompt_rows=np.eye(12)[:4])  # fmt: skip
    scores = Overview(map="pca").score(given)
    assert np.shape(scores.cosine["matrix"]) == (4, 4)
    assert "modality_gap" not in scores.values
    assert set(scores.map["label"]) == set(given.classes)
    with pytest.raises(UserError, match="at least 3"):
        Overview().score(Embeddings(ids(2), np.zeros(2, int), (), np.eye(2)))


def test_pca_keeps_distances_in_the_plane():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((30, 2)) @ np.linalg.qr(rng.standard_normal((9, 2)))[0].T
    flat, method = flatten(plane, "pca")
    assert method == "PCA"
    far = lambda p: np.linalg.norm(p[:, None] - p[None], axis=-1)  # noqa: E731
    assert far(flat) == pytest.approx(far(plane))
