"""Metrics against golden numbers, brute force and promises that hold for any input."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.metrics import classify, cluster, features, neighbours, rank

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")


def golden(folder: str) -> dict[str, np.ndarray]:
    return {
        key.removeprefix(f"{folder}/"): GOLDEN[key]
        for key in GOLDEN.files
        if key.startswith(f"{folder}/")
    }


# -- retrieval --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["five", "ragged"])
def test_retrieval_equals_the_golden_numbers(case):
    want = golden(f"retrieval/{case}")
    image, text = features.unit(want["image"]), features.unit(want["text"])
    got = rank.retrieval(image, text, want["owner"])
    for name in set(want) - {"image", "text", "owner"}:
        assert 100 * got[name] == pytest.approx(float(want[name]), abs=1e-10), name


def brute_ranks(image, text, pairs):
    """In float64, one query at a time, over whole rows."""
    score = np.asarray(text, np.float64) @ np.asarray(image, np.float64).T
    right = np.zeros(score.shape, bool)
    right[pairs[1], pairs[0]] = True

    def one(scores, mine):
        if not mine.any():
            return len(scores)
        return int((scores[~mine] >= scores[mine].max() - 1e-12).sum())

    return (
        [one(score[:, i], right[:, i]) for i in range(len(image))],
        [one(score[j], right[j]) for j in range(len(text))],
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 40), st.integers(1, 9))
def test_ranks_equal_brute_force_for_any_block_and_any_pairs(seed, n, m, block):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that exact ties are common.
    image = rng.integers(-1, 2, (n, 3)).astype(np.float32)
    text = rng.integers(-1, 2, (m, 3)).astype(np.float32)
    chosen = rng.random((n, m)) < 0.2
    pairs = np.nonzero(chosen)
    got = rank.retrieval_ranks(image, text, pairs=pairs, block=block)
    by_image, by_text = brute_ranks(image, text, pairs)
    assert got.image_to_text.tolist() == by_image
    assert got.text_to_image.tolist() == by_text


def test_near_ties_are_decided_exactly_where_float32_cannot():
    # The wrong image is better by 1e-9: float32 sees a tie or worse, the ranks must not.
    rng = np.random.default_rng(0)
    base = features.unit(rng.standard_normal((1, 256)))
    image = np.concatenate([base, base * (1 + 1e-9), -base])
    got = rank.retrieval_ranks(image, base, owner=[0])
    assert got.text_to_image.tolist() == [1]
    got = rank.retrieval_ranks(image, base, owner=[1])
    assert got.text_to_image.tolist() == [0]


def test_rare_ties_in_large_blocks_count_against():
    # Few enough doubtful scores that single pairs are decided, not the whole block.
    rng = np.random.default_rng(0)
    image = features.unit(rng.standard_normal((400, 32))).astype(np.float32)
    text = features.unit(image + 0.02 * rng.standard_normal(image.shape)).astype(np.float32)
    image[7] = image[300]  # two images that no text can tell apart
    text[11] = text[12]  # and two texts that no image can
    pairs = (np.arange(400), np.arange(400))
    got = rank.retrieval_ranks(image, text, pairs=pairs, block=150)
    by_image, by_text = brute_ranks(image, text, pairs)
    assert got.image_to_text.tolist() == by_image
    assert got.text_to_image.tolist() == by_text
    assert by_text[300] == 1
    assert 1 in (by_image[11], by_image[12])


@pytest.mark.parametrize("rows", [3, 700])
def test_collapsed_embeddings_score_zero(rows):
    image = np.tile(features.unit(np.random.default_rng(0).standard_normal((1, 64))), (rows, 1))
    found = rank.retrieval(image, image, np.arange(rows), ks=(1,))
    assert found["image_to_text@1"] == found["text_to_image@1"] == 0.0


def test_retrieval_does_not_change_with_the_order_of_images_and_texts():
    rng = np.random.default_rng(1)
    image, text = rng.standard_normal((30, 8)), rng.standard_normal((70, 8))
    owner = rng.integers(0, 30, 70)
    shuffle, mix = rng.permutation(30), rng.permutation(70)
    place = np.argsort(shuffle)
    one = rank.retrieval_ranks(image, text, owner)
    two = rank.retrieval_ranks(image[shuffle], text[mix], place[owner[mix]], block=7)
    assert (two.text_to_image == one.text_to_image[mix]).all()
    assert (two.image_to_text == one.image_to_text[shuffle]).all()


def test_an_image_without_a_text_is_never_found():
    got = rank.retrieval_ranks(np.eye(3), np.eye(3)[:2], owner=[0, 1])
    assert got.image_to_text.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("image", "text", "owner", "match"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), [0, 1], r"\[N, D\]"),
        (np.ones((2, 3)), np.ones((0, 3)), [], "0 texts"),
        (np.ones((2, 3)), np.ones((1, 3)), [2], "not there"),
        (np.ones((2, 3)), np.ones((2, 3)), [0], "one image a text"),
        (np.full((2, 3), np.nan), np.ones((1, 3)), [0], "finite"),
    ],
)
def test_retrieval_refuses_what_does_not_fit(image, text, owner, match):
    with pytest.raises(ValueError, match=match):
        rank.retrieval_ranks(image, text, owner)


# -- classification ---------------------------------------------------------------------------


def test_zero_shot_golden_accuracies():
    want = golden("zeroshot")
    score = features.unit(want["images"]) @ want["classifier_protoclip"]
    place = classify.ranks(score, want["labels"])
    assert 100 * classify.accuracy(place).value == pytest.approx(float(want["protoclip_top1"]))
    assert 100 * classify.accuracy(place, 5).value == pytest.approx(float(want["protoclip_top5"]))
    place = classify.ranks(features.unit(want["images"]) @ want["classifier_itra"], want["labels"])
    assert 100 * classify.accuracy(place).value == pytest.approx(float(want["itra_acc"]))
    # The golden mean per class is of the other labels, in which every class occurs.
    score, label = (
        features.unit(want["images"]) @ want["classifier_itra"],
        want["labels_all_present"],
    )
    score = features.unit(want["images"]) @ want["classifier_itra"]
    mean = classify.mean_recall(classify.ranks(score, label), label, 6).value
    assert 100 * mean == pytest.approx(float(want["itra_mean_per_class"]), abs=0.006)


def test_accuracy_and_mean_per_class_golden():
    want = golden("classify")
    for label, accuracy, mean in [
        ("mc_label", "accuracy", "mean_per_class"),
        ("mc_label_absent", "accuracy_absent", "mean_per_class_absent_plain_sklearn"),
    ]:
        y = want[label].astype(int)
        place = classify.ranks(want["mc_prob"], y)
        assert classify.accuracy(place).value == pytest.approx(float(want[accuracy]), abs=1e-12)
        assert classify.mean_recall(place, y, 7).value == pytest.approx(
            float(want[mean]), abs=1e-12
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6))
def test_decisions_agree_with_ranks_and_with_the_confusion(seed, n, c):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 3, (n, c)).astype(float)  # ties are common
    score[rng.random((n, c)) < 0.1] = np.nan
    label = rng.integers(0, c, n)
    place, decided = classify.ranks(score, label), classify.decide(score, label)
    if c > 1:
        assert ((decided == label) == (place == 0)).all()
    table = classify.confusion(decided, label, c)
    assert table.sum() == n
    right, count = classify.recalls(place, label, c)
    assert (count == table.sum(1)).all()
    if c > 1:
        assert (right == np.diag(table)).all()


def test_constant_scores_are_worth_nothing():
    score, label = np.ones((6, 3)), np.array([0, 1, 2, 0, 1, 2])
    place = classify.ranks(score, label)
    assert classify.accuracy(place).value == 0
    assert classify.accuracy(place, 3).value == 1
    assert classify.mean_recall(place, label, 3).value == 0


def test_a_class_without_samples_has_no_recall():
    mean = classify.mean_recall(np.array([0, 0, 1]), np.array([0, 0, 2]), 3)
    assert mean.value == 0.5
    assert mean.n == 3


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.2"):
        classify.ranks(np.ones((1, 3)), np.array([3]))


# -- clustering -------------------------------------------------------------------------------


def test_agreement_golden():
    want = golden("clustering")
    table = cluster.contingency(want["labels"], want["fixed_pred"])
    assert cluster.ari(table) == pytest.approx(float(want["fixed_ari"]), abs=1e-12)
    assert cluster.ami(table) == pytest.approx(float(want["fixed_ami"]), abs=1e-12)
    assert cluster.nmi(table) == pytest.approx(float(want["fixed_nmi"]), abs=1e-12)


def test_k_means_golden_within_the_library_tolerance():
    want = golden("clustering")
    found = cluster.k_means(want["features"], int(want["k"]))
    table = cluster.contingency(want["labels"], found)
    assert cluster.ari(table) == pytest.approx(float(want["kmeans_ari"]), abs=0.05)
    assert cluster.ami(table) == pytest.approx(float(want["kmeans_ami"]), abs=0.05)
    assert (found == cluster.k_means(want["features"], int(want["k"]))).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 6), st.integers(1, 6))
def test_agreements_equal_scikit_learn(seed, n, r, k):
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, r, n), rng.integers(0, k, n)
    table = cluster.contingency(a, b)
    assert cluster.ami(table) == pytest.approx(metrics.adjusted_mutual_info_score(a, b), abs=1e-9)
    assert cluster.ari(table) == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-12)
    assert cluster.nmi(table) == pytest.approx(
        metrics.normalized_mutual_info_score(a, b), abs=1e-12
    )


def test_agreement_intervals_hold_the_value_and_the_perfect_case():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 300)
    noisy = np.where(rng.random(300) < 0.3, rng.integers(0, 5, 300), label)
    for interval in cluster.agreements(label, noisy, resamples=50).values():
        assert interval.low < interval.value < interval.high
        assert interval.high - interval.low < 0.3
    for interval in cluster.agreements(label, (label + 2) % 5, resamples=20).values():
        assert interval.value == pytest.approx(1)


def test_k_means_refuses_more_clusters_than_points():
    with pytest.raises(ValueError, match="number of points"):
        cluster.k_means(np.ones((3, 2)), 4)


# -- neighbours -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12))
def test_nearest_equals_a_full_sort(seed, n, k):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 5)).astype(np.float32)
    rows[rng.random(n) < 0.3] = rows[0]  # duplicates: the lower number comes first
    query = rng.standard_normal((7, 5)).astype(np.float32)
    exact = query.astype(np.float64) @ rows.astype(np.float64).T
    index, similarity = neighbours.nearest(query, rows, k, query_block=3, row_block=64)
    # With at most 8 equals at the edge, which the spare candidates cover.
    want = np.argsort(-np.round(exact, 12), axis=1, kind="stable")[:, : min(k, n)]
    assert np.allclose(similarity, np.take_along_axis(exact, want, 1), atol=1e-6)
    assert index.shape == want.shape
    if (rows == rows[0]).all(1).sum() <= 8:
        assert (index == want).all()


def test_nearest_across_row_blocks():
    rng = np.random.default_rng(0)
    rows, query = rng.standard_normal((500, 16)), rng.standard_normal((20, 16))
    want = np.argsort(-(query @ rows.T), axis=1)[:, :20]
    for row_block in (17, 64, 4096):
        index, _ = neighbours.nearest(query, rows, 20, row_block=row_block)
        assert (index == want).all()


def test_votes_weigh_by_similarity():
    index, similarity = np.array([[0, 1, 2]]), np.array([[0.9, 0.5, 0.5]])
    label = np.array([0, 1, 1])
    assert neighbours.votes(index, similarity, label, 2, None).argmax() == 1
    assert neighbours.votes(index, similarity, label, 2, 0.07).argmax() == 0
    want = np.exp(np.array([0.9, 0.5]) / 0.07) * [1, 2]
    got = neighbours.votes(index, similarity, label, 2, 0.07)[0]
    assert got / got.sum() == pytest.approx(want / want.sum())
    assert np.isfinite(neighbours.votes(index, similarity * 1000, label, 2, 1e-4)).all()


# -- features ---------------------------------------------------------------------------------


def test_feature_analysis_golden():
    want = golden("features")
    image, text = want["image"], want["text"]
    assert features.self_similarity(image, block=7) == pytest.approx(
        float(want["image_avg_self_similarity"]), abs=1e-12
    )
    assert features.self_similarity(text) == pytest.approx(
        float(want["text_avg_self_similarity"]), abs=1e-12
    )
    assert features.modality_gap(image, text) == pytest.approx(float(want["modality_gap"]))
    assert features.spread(features.unit(image)) == pytest.approx(float(want["image_feature_std"]))
    assert features.spread(features.unit(text)) == pytest.approx(float(want["text_feature_std"]))


def test_uniformity_alignment_and_rank_at_their_ends():
    one = np.ones((5, 4))
    assert features.uniformity(one) == pytest.approx(0)
    assert features.effective_rank(one) == 0
    assert features.alignment(one, -one) == pytest.approx(np.full(5, 4.0))
    rng = np.random.default_rng(0)
    assert features.effective_rank(rng.standard_normal((4000, 6))) == pytest.approx(6, abs=0.05)
    line = np.outer(rng.standard_normal(50), np.ones(4))
    assert features.effective_rank(line) == pytest.approx(1, abs=1e-6)
    x = features.unit(rng.standard_normal((40, 3)))
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)[np.triu_indices(40, 1)]
    assert features.uniformity(x, block=9) == pytest.approx(np.log(np.exp(-2 * squared).mean()))


def test_unit_rows_survive_zero_and_half_precision():
    rows = features.unit(np.array([[0, 0], [300, 400]], np.float16))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 0], pytest.approx([0.6, 0.8])]
