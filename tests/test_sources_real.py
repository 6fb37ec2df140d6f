"""Layouts on real collections (VISLANG_TEST_DATA): counts, joins, labels; images decode."""

import os
from pathlib import Path

import pytest
import torch

from vislang.data.batches import Batches
from vislang.data.decode import decode_sample
from vislang.data.sample import Source
from vislang.data.sources import open_source
from vislang.errors import UserError
from vislang.preprocess import Preprocess


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))


def decodes(source: Source, step: int) -> None:
    for index in range(0, len(source), step):
        assert min(decode_sample(source[index]).pixels.shape[:2]) >= 10


def test_flickr8k(test_data: Path):
    file = test_data / "flickr8k/captions.csv"
    train, dev = (open_source(file, split=split) for split in ("train", "dev"))
    assert (len(train), len(dev)) == (6000, 1000)
    assert all(len(dev[i].texts) == 5 for i in range(1000))
    assert dev[0].image.path.name == "images_112.zip"  # of two archives the one with all images
    decodes(dev, 50)
    listed = open_source(f"flickr:{file}", split=str(test_data / "flickr8k/devImages.txt"))
    assert [listed[i].texts for i in range(1000)] == [dev[i].texts for i in range(1000)]
    few = open_source(file, split="dev", images=str(test_data / "flickr8k/images_224_sample.zip"))
    batches = Batches(few, 1000, needs=("image",), image=Preprocess((8, 8)), shuffle=False)
    rejected = next(batches.start())["rejected"]
    assert len(rejected) == 880  # 120 of the 1,000 are in the sample
    assert rejected[0].reason.endswith("is not in images_224_sample.zip")
    with pytest.raises(UserError, match=r"no split 'deev'\. Did you mean 'dev'"):
        open_source(file, split="deev")


def test_coco_mini(test_data: Path):
    root = test_data / "coco-mini"
    source = open_source(
        root / "annotations_320/captions_val2017.json",
        images=str(root / "images_320_val2017.zip"),
    )
    counts = [len(source[i].texts) for i in range(len(source))]
    assert len(counts) == 283 and sum(counts) == 1416 and set(counts) == {5, 6}
    decodes(source, 30)
    found = open_source(root / "annotations_320/captions_train2017.json",
                        images=str(root / "images_320_train2017.zip"))  # fmt: skip
    assert len(found) == 80
    whole = open_source(root / "captions_val2017_full.json.gz", images="none")
    assert (len(whole), sum(len(whole[i].texts) for i in range(5000))) == (5000, 25014)


def test_webdataset_tars(test_data: Path):
    folder = test_data / "laion-like/wds_tars"
    source = open_source(folder)
    assert [len(shard) for shard in source.shards()] == [4, 3, 2, 2]
    for index in range(len(source)):
        sample = source[index]
        width, height = map(int, sample.id.split("/")[1].split("_"))
        assert decode_sample(sample).pixels.shape == (height, width, 3)
    some = open_source(f"{folder}/image{{1..3}}.tar")
    assert len(some) == 9 and some[8].image == source[8].image
    if not os.access(folder, os.W_OK):
        assert not list(folder.glob(".*"))  # the index went to the cache


def test_laion_parquet_is_text(test_data: Path):
    source = open_source(test_data / "laion-like/test_1000.parquet")
    assert len(source) == 1000 and source.gives == {"text"}
    batch = next(Batches(source, 64, needs=("text",), tokenizer=lengths).start())
    assert len(batch["id"]) + len(batch["rejected"]) == 64


def lengths(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[len(text)] for text in texts])


def test_textures_in_a_zip(test_data: Path):
    folder = test_data / "dtd-10class-sample"
    source = open_source(folder / "images_192.zip", template="a {} texture.")
    assert source.classes == tuple((folder / "classnames.txt").read_text().split())
    labels = [source[i].labels[0] for i in range(len(source))]
    assert [labels.count(c) for c in range(10)] == [20] * 10
    assert source[0].texts == ("a banded texture.",)
    decodes(source, 10)


def test_cifar_in_zips(test_data: Path):
    folder = test_data / "cifar10-sample"
    train, test = (open_source(folder / f"{s}.zip") for s in ("train_200", "test_100"))
    assert (len(train), len(test)) == (2000, 1000) and train.classes == test.classes
    both = f"zip:{folder}/*.zip"
    assert len(open_source(both, split="test")) == 1000
    with pytest.raises(UserError, match="holds the splits test, train: choose one with split"):
        open_source(both)


def test_tiny_imagenet(test_data: Path):
    folder = test_data / "tiny-imagenet-200-subset"
    words = str(folder / "words_200.txt")
    train = open_source(f"imagenet:{folder}/train_60.zip", words=words)
    valid = open_source(f"imagenet:{folder}/val_25.zip", words=words)
    more = open_source(f"imagenet:{folder}/train_*.zip", words=words)
    assert (len(train), len(valid), len(more)) == (12_000, 5_000, 30_000)
    assert train.classes == valid.classes == more.classes and len(set(train.classes)) == 200
    assert "goldfish" in train.classes and "Egyptian cat" in train.classes
    labels = [valid[i].labels[0] for i in range(5000)]
    assert [labels.count(c) for c in range(200)] == [25] * 200
    sample = train[0]
    assert train.wnids[sample.labels[0]] in sample.id
    grey = [i for i in range(2000) if decode_sample(train[i]).pixels.shape != (64, 64, 3)]
    assert grey == []  # 212 of the train images are greyscale files


def test_imagenet_with_ids_in_file_names(test_data: Path):
    folder = test_data / "imagenet1k-one-per-class"
    source = open_source(f"imagenet:{folder}/images_128.zip")
    assert len(source) == len(source.classes) == 1000
    assert [source[i].labels[0] for i in range(1000)] == list(range(1000))
    table = open_source(folder / "labels.tsv", image="file", label="wnid",
                        images_root=str(folder / "images_128.zip"))  # fmt: skip
    assert [table[i].labels[0] for i in range(1000)] == list(range(1000))
    decodes(table, 100)


def test_pictures_of_known_sizes(test_data: Path):
    source = open_source(test_data / "laion-like/images")
    assert source.gives == {"image"}
    for index in range(len(source)):
        width, height = map(int, source[index].id.removesuffix(".jpg").split("_"))
        assert decode_sample(source[index]).pixels.shape == (height, width, 3)
