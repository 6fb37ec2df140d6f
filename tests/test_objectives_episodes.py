"""K-means of an episode and ProtoCLIP's life with it."""

import pytest
import torch

from objectives_cases import make, rows
from vislang.config import ObjectiveConfig
from vislang.errors import UserError
from vislang.objectives.build import build_objective
from vislang.objectives.kmeans import cluster_means, kmeans, nearest

# -- K-means -------------------------------------------------------------------------------------


def _blobs(count=300, clusters=5):
    generator = torch.Generator().manual_seed(1)
    middles = 10 * torch.randn(clusters, 4, generator=generator)
    truth = torch.arange(count) % clusters
    return middles[truth] + torch.randn(count, 4, generator=generator), truth


@pytest.mark.parametrize("backend", ["own", "faiss"])
def test_kmeans_finds_separate_groups(backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    points, truth = _blobs()
    found = kmeans(points, 5, repetitions=60, backend=backend)
    assert found.backend == backend
    pairs = {(int(a), int(b)) for a, b in zip(found.labels, truth)}
    assert len(pairs) == 5  # one to one
    assert found.sizes.tolist() == [60] * 5
    torch.testing.assert_close(found.labels, nearest(points, found.centroids)[0])
    assert found.errors[-1] <= found.errors[0] * (1 + 1e-6)
    again = kmeans(points, 5, repetitions=60, backend=backend)
    assert torch.equal(found.centroids, again.centroids)


def test_own_kmeans_is_as_good_as_faiss():
    pytest.importorskip("faiss")
    torch.manual_seed(0)
    points = torch.randn(500, 8)
    errors = {
        name: float(nearest(points, kmeans(points, 20, 25, 5, 7, name).centroids)[1].sum())
        for name in ("own", "faiss")
    }
    assert errors["own"] == pytest.approx(errors["faiss"], rel=0.03)


def test_kmeans_fills_empty_clusters_and_survives_duplicates():
    points = torch.cat([torch.zeros(30, 2), torch.ones(2, 2), torch.full((1, 2), torch.nan)])
    found = kmeans(points, 4, backend="own")
    assert found.centroids.isfinite().all() and len(found.labels) == 33
    spread = torch.randn(10, 2)
    assert kmeans(spread, 10, backend="own").sizes.tolist() == [1] * 10


def test_fewer_samples_than_clusters_is_an_error():
    with pytest.raises(UserError, match="got 3 samples for 4 clusters"):
        kmeans(torch.randn(3, 2), 4)
    objective = make("protoclip")
    with pytest.raises(UserError, match=r"3 samples for 4 clusters\. Use a longer episode"):
        objective.cluster(torch.arange(3), torch.randn(3, 5), torch.randn(3, 5))


def test_an_empty_cluster_has_the_mean_zero():
    means = cluster_means(torch.ones(3, 2), torch.tensor([0, 0, 2]), 4)
    assert means.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]


# -- ProtoCLIP's episodes ------------------------------------------------------------------------


def test_protoclip_phases():
    objective = make("protoclip", warmup=1, lit_start=4, every=2)
    seen = []
    for episode in range(5):
        objective.start_episode(episode)
        seen.append((objective.phase, objective.clusters_now()))
    assert seen == [
        ("clip", False),
        ("prototypes", False),
        ("prototypes", True),
        ("prototypes", False),
        ("lit", False),
    ]


def test_protoclip_without_prototypes_says_so():
    config = ObjectiveConfig("protoclip", {"clusters": 4, "warmup": 1})
    objective = build_objective(config, 6)
    batch = rows(objective, 5, dtype=torch.float32)
    plain = build_objective(ObjectiveConfig("infonce"), 6)
    torch.testing.assert_close(objective(**batch), plain(batch["image"], batch["text"]))
    objective.start_episode(1)
    with pytest.raises(UserError, match="no prototypes yet"):
        objective(**batch)


def test_protoclip_ignores_samples_outside_the_episode():
    objective = make("protoclip", prototype_temperature=1.0)
    batch = rows(objective, 6)
    outside = {**batch, "index": torch.arange(6) + 1000}
    loss = objective(**outside)
    assert float(objective.parts["labelled"]) == 0
    torch.testing.assert_close(loss.detach(), objective.parts["infonce"])


def test_protoclip_keeps_the_first_of_repeated_samples():
    objective = make("protoclip")
    index = torch.tensor([7, 3, 7, 5, 9, 3])
    image, text = torch.randn(2, 6, 5)
    found = objective.cluster(index, image, text)
    assert objective.samples.tolist() == [3, 5, 7, 9]
    labels = nearest(image[[1, 3, 0, 4]], found["image"].centroids)[0]
    assert torch.equal(objective.image_labels, labels)


def test_protoclip_loads_tables_of_another_size():
    objective = make("protoclip")
    objective.cluster(torch.arange(50), *torch.randn(2, 50, 5))
    fresh = build_objective(
        ObjectiveConfig("protoclip", {"clusters": 4, "projector": [9], "projection": 5}), 6
    )
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh.samples, objective.samples)


def test_external_teacher_is_asked_for():
    objective = make("protoclip", external_weight=0.5)
    with pytest.raises(UserError, match="without the external teacher"):
        objective(**rows(objective, 4))
    objective.cluster(torch.arange(30), *torch.randn(2, 30, 5), external=torch.randn(30, 3))
    objective(**rows(objective, 4))
    assert "external" in objective.parts
    with pytest.raises(UserError, match="needs back_translate"):
        make("protoclip", external_weight=0.5, back_translate=False)
