"""The matrix of pictures and captions, captions out of file names, proper names of classes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from layouts import add_files
from pictures import jpeg
from vislang.cli import main as cli
from vislang.config import ModelConfig, TowerConfig
from vislang.data.prompts import read_prompts
from vislang.data.proper_names import CALTECH101, NAMES, proper_names
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.evaluate import read_scores
from vislang.evaluate.datasets import DATASETS
from vislang.evaluate.matrix import Matrix
from vislang.evaluate.requests import Embeddings
from vislang.evaluate.zeroshot import ZeroShot
from vislang.models.build import build_model
from vislang.models.pretrained import save_model

SMALL = {"width": 16, "depth": 1, "heads": 2}
CONFIG = ModelConfig(
    TowerConfig("scratch_vit", SMALL | {"image_size": 16, "patch": 8}),
    TowerConfig("scratch_text", SMALL | {"tokenizer": "bytes"}),
    width=8,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    return save_model(build_model(CONFIG), CONFIG, tmp_path_factory.mktemp("model"))


def embedded(images, captions, texts, owner):
    return Embeddings(
        ids=[f"{i}.jpg" for i in range(len(images))],
        label=np.full(len(images), -1),
        classes=(),
        images=np.asarray(images, float),
        captions=np.asarray(captions, float),
        caption_texts=texts,
        caption_owner=np.array(owner),
    )


def test_the_matrix_by_hand():
    """Three pictures, three captions; the third picture shares its caption with the first."""
    images = [[1, 0], [0, 2], [1, 1]]
    captions = [[2, 0], [0, 1], [2, 0], [-1, 0]]
    found = Matrix().score(embedded(images, captions, ["a", "b", "a", "c"], [0, 1, 2, 1]))
    half = round(0.5**0.5, 4)
    assert found.cosine["texts"] == ["a", "b", "c"]
    assert found.cosine["matrix"] == [[1, 0, -1], [0, 1, 0], [half, half, -half]]
    assert found.values["right_by_picture"].value == pytest.approx(2 / 3)  # a tie is no hit
    assert found.values["right_by_caption"].value == 1  # a: 1 of own; b: 1; c: 0 above -0.7, -1
    assert found.values["own_cosine"].value == pytest.approx((1 + 1 + 0 + half) / 4, abs=1e-4)


def test_too_many_or_too_few_are_refused():
    source = open_source("digits:test")
    with pytest.raises(UserError, match="cannot be read: at most 100"):
        Matrix().requests(source)
    with pytest.raises(UserError, match="two different captions"):
        Matrix().score(embedded([[1, 0]] * 2, [[1, 0]] * 2, ["a", "a"], [0, 1]))


def test_the_command_draws_a_folder_of_pictures_that_are_named_by_their_captions(
    model, tmp_path, capsys
):
    names = ["a_red  truck", "sky over a garden", "glas Wasser"]
    add_files(tmp_path / "photos", {f"{name}.jpg": jpeg(i, 30, 20) for i, name in enumerate(names)})
    source = open_source(f"folder:{tmp_path / 'photos'}", captions="names")
    assert [source[i].texts for i in range(3)] == [
        ("a red truck",), ("glas Wasser",), ("sky over a garden",)
    ]  # fmt: skip
    call = ["cosine", str(model), str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert cli.main(call) == 2
    assert "add --names true" in capsys.readouterr().err
    assert cli.main([*call, "--names", "true"]) == 0
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "sky over a garden" in page and page.count("data:image/") >= 3
    body = json.loads((tmp_path / "out/scores/000000000/matrix.json").read_text())
    assert np.shape(body["cosine"]["matrix"]) == (3, 3)


def test_a_phones_picture_is_turned_before_it_is_embedded(model, tmp_path):
    """EXIF orientation 6, as in the original's photos: the cosines are those of the turned one."""
    from vislang.evaluate import evaluate

    rng = np.random.default_rng(0)
    upright = Image.fromarray(
        rng.integers(0, 255, (6, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    )
    lying, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    rows = {}
    for name, picture, extra in (("up", upright, {}), ("lying", lying, {"exif": exif})):
        file = io.BytesIO()
        picture.save(file, "PNG", **extra)
        files = {"one.png": file.getvalue(), "two.jpg": jpeg(3, 20, 20)}
        folder = add_files(tmp_path / name, files)
        scores = evaluate(
            model, str(folder), ("vislang.evaluate.matrix:Matrix",), tmp_path / f"{name}-out",
            source_options={"captions": "names"},
        )[0]  # fmt: skip
        rows[name] = scores.cosine["matrix"]
    assert rows["up"] == rows["lying"]


def test_captions_of_a_folder_are_names_or_none(tmp_path):
    add_files(tmp_path, {"a.jpg": jpeg(0, 9, 9)})
    with pytest.raises(UserError, match="names or empty"):
        open_source(f"folder:{tmp_path}", captions="stem")


# Names of classes --------------------------------------------------------------------------------


class Classes:
    gives, name, templates = frozenset({"image", "label"}), "x", ()

    def __init__(self, *classes, wnids=()):
        self.classes, self.wnids = classes, wnids

    def __len__(self):
        return 1


def test_folders_of_caltech_get_names_that_a_caption_would_use(model, tmp_path):
    folders = ["BACKGROUND_Google", "Faces_easy", "accordion", "car_side", "wild_cat"]
    add_files(tmp_path, {f"{name}/1.jpg": jpeg(1, 9, 9) for name in folders})
    names = proper_names(open_source(str(tmp_path)), "caltech101")
    assert names == [
        "random scene", "face of a person", "accordion", "car from the side", "wildcat"
    ]  # fmt: skip
    assert not [name for name in CALTECH101 if "_" in name or name != name.lower()]
    assert len(set(CALTECH101.values())) == len(CALTECH101)
    assert set(NAMES) <= set(DATASETS)


def test_wordnet_ids_get_curated_names_and_unknown_ones_their_own():
    source = Classes("tench, Tinca tinca", "thing", wnids=("n01440764", "n99999999"))
    assert proper_names(source, "tiny_imagenet") == ["tench", "thing"]
    assert proper_names(Classes("plane", "maple_tree"), "cifar10") == ["airplane", "maple tree"]
    with pytest.raises(UserError, match="no proper names for 'cifar'"):
        proper_names(source, "cifar")


def test_prompts_for_small_pictures_are_eighteen():
    found = read_prompts("photos")
    assert len(found) == len(set(found)) == 18
    assert "a low contrast photo of the {}." in found and "a photo of a big {}." in found


def test_zeroshot_takes_proper_names_by_the_data_sets_name():
    asked = ZeroShot("name", classes="caltech101").requests(Classes("Leopards", "emu"))
    assert asked.texts == ("leopard", "emu")


def test_the_catalogue_needs_no_training_samples_for_zeroshot(model, tmp_path, capsys):
    names = "plane car bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    add_files(
        tmp_path / "data/cifar10",
        {f"test/{n}/{i}.jpg": jpeg(i, 32, 32) for n in names for i in (0, 1)},
    )
    call = ["evaluate", str(model), "--dataset", "cifar10", "--data_root", str(tmp_path / "data"),
            "--out", str(tmp_path / "out"), "--workers", "0"]  # fmt: skip
    assert cli.main([*call, "--suite", "zeroshot"]) == 0, capsys.readouterr().err
    assert "zeroshot: cifar10" in capsys.readouterr().out
    found = read_scores(tmp_path / "out/datasets/cifar10/scores/000000000/zeroshot.json")
    assert found.provenance["settings"]["templates"] == 18
    assert {row[0] for row in found.tables["per_class"]["rows"]} >= {"airplane", "car"}
    assert cli.main([*call, "--suite", "probe"]) == 2  # which learns from some
    assert "cifar10 is not below" in capsys.readouterr().err
