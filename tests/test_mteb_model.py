"""A model in the package mteb: its rows, its similarities, and a task where mteb is installed."""

import numpy as np
import pytest
from PIL import Image

from vislang.errors import UserError
from vislang.evaluate.mteb_model import MtebModel
from vislang.metrics.features import unit


@pytest.fixture(scope="module")
def adapted():
    from vislang.models.build import build_model
    from vislang.recipes import find_config
    from vislang.recipes.tiny import tiny

    return MtebModel(build_model(tiny(find_config("clip")).model), device="cpu", precision="fp32")


def pictures(n):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(n)]


def test_texts_and_images_become_rows_of_the_joint_space(adapted):
    from vislang.embed.texts import embed_texts

    texts = ["a cat", "two dogs", "a cat"]
    rows = adapted.encode([{"text": texts[:2]}, {"text": texts[2:]}], task_metadata=None)
    np.testing.assert_allclose(rows, embed_texts(adapted.model, texts, device="cpu"), atol=1e-6)
    images = adapted.encode([{"image": pictures(3)}])
    both = adapted.encode([{"text": texts, "image": pictures(3)}])
    np.testing.assert_allclose(both, unit(rows) + unit(images), atol=1e-6)
    cosines = adapted.similarity(rows, rows).numpy()
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-6)
    np.testing.assert_allclose(adapted.similarity_pairwise(rows, rows).numpy(), 1, atol=1e-6)
    with pytest.raises(UserError, match="texts, or images, or both"):
        adapted.encode([{"text": ["a"]}, {"image": pictures(1)}])


def test_mteb_takes_it_for_an_encoder(adapted):
    mteb = pytest.importorskip("mteb", reason="needs the package mteb")
    from mteb.models.models_protocols import EncoderProtocol

    assert isinstance(adapted, EncoderProtocol) and mteb
    meta = adapted.mteb_model_meta
    assert meta.name == "vislang/model" and meta.modalities == ["text", "image"]
