"""Grounding DINO: the library's own inputs and outputs, phrases together, bad folders."""

import json

import numpy as np
import pytest
import torch

from localize_cases import picture, save_dino
from vislang.errors import UserError
from vislang.localize.grounding_dino import build
from vislang.localize.opening import open_localizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_dino(tmp_path_factory.mktemp("dino"))


def test_it_is_transformers_with_suppression(folder):
    import transformers as t

    image = np.ascontiguousarray(picture("coffee_wide")[::4, ::4])
    localizer = open_localizer(folder, "", "cpu", {"threshold": 0.0, "overlap": 1.0, "boxes": 99})
    assert localizer.name == "grounding_dino"
    whole = t.GroundingDinoProcessor(localizer.processor, localizer.tokenizer)
    inputs = whole(images=image, text="a cup. a red spoon.", return_tensors="pt")
    with torch.no_grad():
        theirs = localizer.model(**inputs)
    ids = inputs["input_ids"][0].tolist()
    logits, boxes = localizer.forward(image, ids)
    torch.testing.assert_close(logits, theirs.logits[0].float())
    found = localizer([image], [["a cup", "A red spoon."]])[0]
    scores = theirs.logits[0].sigmoid()
    for one, span in zip(found, (slice(1, 3), slice(4, 7))):  # [CLS] a cup . a red spoon . [SEP]
        best = scores[:, span].max(1).values.sort(descending=True).values.numpy()
        np.testing.assert_allclose(one.scores, best, atol=1e-5)
        cx, cy, w, h = (boxes[scores[:, span].max(1).values.argmax()] * torch.tensor(
            [150, 100, 150, 100])).tolist()  # fmt: skip
        expected = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        np.testing.assert_allclose(one.boxes[0], np.clip(expected, 0, [150, 100] * 2), atol=1e-3)


def test_alone_long_and_of_no_words(folder):
    image = np.ascontiguousarray(picture("coffee_wide")[::4, ::4])
    alone = build(folder, "cpu", together=1)
    both = alone([image], [["a cup", "a spoon"]])[0]
    single = alone([image], [["a spoon"]])[0][0]
    np.testing.assert_allclose(both[1].scores, single.scores, atol=1e-6)
    long, dot = build(folder, "cpu")([image], [["cup " * 90, "."]])[0]
    assert long.notes == ("the phrase was cut to 29 tokens",) and not len(dot.boxes)
    strict = build(folder, "cpu", threshold=1.0, at_least_one=False)
    assert not len(strict([image], [["a cup"]])[0][0].boxes)


def test_what_is_none_is_said(folder, tmp_path):
    with pytest.raises(UserError, match=r"lacks config\.json"):
        build(str(tmp_path))
    with pytest.raises(UserError, match="together"):
        build(folder, "cpu", together=0)
    for name in ("model.safetensors", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="is a bert"):
        build(str(tmp_path))
