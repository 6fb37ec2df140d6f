"""A model in the package mteb: its rows, its similarities, and a task where mteb is installed."""

import numpy as np
import pytest
from PIL import Image

from vislang.errors import UserError
from vislang.evaluate.mteb_model import MtebModel
from vislang.metrics.features import unit


@pytest.fixture(scope="module")
def adapted():
    import torch

    from vislang.models.build import build_model
    from vislang.recipes import find_config
    from vislang.recipes.tiny import tiny

    torch.manual_seed(0)
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


def about_task(name, kind, category, score):
    """What mteb wants to know of a task, of one that nobody downloads."""
    from mteb.abstasks.task_metadata import TaskMetadata

    modalities = ["text"] if category == "t2t" else ["image", "text"]
    return TaskMetadata(
        name=name, type=kind, modalities=modalities, main_score=score, description="in memory",
        dataset={"path": "none", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
        category=category, reference=None, prompt=None,
        date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None,
        dialect=None, sample_creation=None, bibtex_citation="",
    )  # fmt: skip


def mteb_scores(model, task):
    import mteb

    found = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    assert not found.exceptions
    return found.model_name, found.task_results[0].scores["test"][0]


def test_a_task_of_sentences_runs_in_mteb(adapted):
    pytest.importorskip("mteb", reason="needs mteb: pip install 'vislang[mteb]'")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.models.models_protocols import EncoderProtocol
    from scipy.stats import spearmanr

    from vislang.embed.texts import embed_texts

    left = ["a cat", "two dogs run", "a red car", "the sea at night", "a man with a hat"]
    right = ["one cat", "dogs are running", "a green tree", "a dark sea", "a loaf of bread"]
    gold = [4.0, 5.0, 1.0, 3.5, 0.0]

    class Pairs(AbsTaskSTS):
        metadata = about_task("PairsInMemory", "STS", "t2t", "cosine_spearman")

        def load_data(self, **_):
            rows = {"sentence1": left, "sentence2": right, "score": gold}
            self.dataset = DatasetDict(test=Dataset.from_dict(rows))
            self.data_loaded = True

    assert isinstance(adapted, EncoderProtocol)
    name, scores = mteb_scores(adapted, Pairs())
    u, v = (unit(embed_texts(adapted.model, side, device="cpu")) for side in (left, right))
    expected = spearmanr((u * v).sum(axis=1), gold).statistic
    assert name == "vislang/model"
    assert scores["main_score"] == scores["spearman"] == pytest.approx(expected)


# A model from nothing never gives some of the answers, of which sklearn warns in mteb.
@pytest.mark.filterwarnings("ignore:Precision is ill-defined")
def test_tasks_of_images_and_texts_run_in_mteb(adapted):
    pytest.importorskip("mteb", reason="needs mteb: pip install 'vislang[mteb]'")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    colours = ("black", "white", "red", "lime", "blue", "yellow")
    images = [Image.new("RGB", (24, 20), colour) for colour in colours]
    texts = ["a cat", "two dogs", "a red car", "the sea", "x", "a man with a hat on a bench"]
    cosines = adapted.similarity(
        adapted.encode([{"image": images}]), adapted.encode([{"text": texts}])
    ).numpy()  # [image, text]
    label, best = (
        np.where(np.arange(6) < 4, said, (said + 1) % 6).tolist()  # four of six are right
        for said in (cosines.argmax(axis=1), cosines.argmax(axis=0))
    )

    class Named(AbsTaskZeroShotClassification):
        metadata = about_task("Named", "ZeroShotClassification", "i2t", "accuracy")

        def load_data(self, **_):
            self.dataset = DatasetDict(test=Dataset.from_dict({"image": images, "label": label}))
            self.data_loaded = True

        def get_candidate_labels(self):
            return texts

    class Found(AbsTaskRetrieval):
        metadata = about_task("Found", "Any2AnyRetrieval", "t2i", "hit_rate_at_1")

        def load_data(self, **_):
            right = {f"q{i}": {f"d{k}": 1} for i, k in enumerate(best)}
            self.dataset = {"default": {"test": RetrievalSplitData(
                queries=Dataset.from_dict({"id": list(right), "text": texts}),
                corpus=Dataset.from_dict({"id": [f"d{k}" for k in range(6)], "image": images}),
                relevant_docs=right, top_ranked=None,
            )}}  # fmt: skip
            self.data_loaded = True

    assert mteb_scores(adapted, Named())[1]["accuracy"] == pytest.approx(4 / 6)
    assert mteb_scores(adapted, Found())[1]["hit_rate_at_1"] == pytest.approx(4 / 6, abs=1e-5)
    meta = adapted.mteb_model_meta
    assert meta.modalities == ["text", "image"]
