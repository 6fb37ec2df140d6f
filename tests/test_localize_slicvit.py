"""SLICViT: the published numbers, and what is better than published."""

import numpy as np
import pytest
import torch

from localize_cases import GOLDEN, PROMPTS, golden_model, picture, small_model
from vislang.errors import UserError
from vislang.localize.segments import embed_segments, pair_up
from vislang.localize.slicvit import SlicVit, build, heat_map
from vislang.localize.superpixels import LEVELS, Superpixels, label_maps, one_level

NUMBERS = np.load(GOLDEN / "localize_slicvit.npz")
SMALL = {"levels": (5, 9), "temperature": 0.05}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "vit32"
    spec = golden_model(
        folder, NUMBERS, "vit32.w.", layers=4, width=64, patch_size=32, head_width=64
    )
    return build(spec, "cpu", published="vit14/flickr")


def test_the_published_numbers(published):
    names = list(PROMPTS)
    pictures = [picture(name) for name in names]
    found = published(pictures, list(PROMPTS.values()))
    for name, located in zip(names, found):
        _, pairs, rows = published.embed([picture(name)])[0]
        scores, _ = published.scores(rows, PROMPTS[name])
        for k, one in enumerate(located):
            key = f"vit32_doc_{name}_{k}"
            np.testing.assert_allclose(scores[pairs.index, k], NUMBERS[f"{key}.scores"], atol=2e-6)
            np.testing.assert_allclose(one.heat[::8, ::8], NUMBERS[f"{key}.heat8"], atol=2e-5)
            np.testing.assert_allclose(one.boxes, NUMBERS[f"{key}.box"], atol=1e-3)


def test_shared_superpixels_are_scikit_images():
    for name in PROMPTS:
        small = np.ascontiguousarray(picture(name)[:150:2, :200:2])
        levels = (20, 50, 50, 77)
        maps = label_maps(small, levels)
        np.testing.assert_array_equal(maps, [one_level(small, n) for n in levels])
    flat = np.full((20, 30, 3), 7, np.uint8)
    np.testing.assert_array_equal(label_maps(flat, (9,))[0], one_level(flat, 9))
    blurred = label_maps(small, (20,), sigma=1.0)
    np.testing.assert_array_equal(blurred[0], one_level(small, 20, sigma=1.0))


def test_superpixels_are_remembered_and_made_elsewhere():
    pictures = [np.ascontiguousarray(picture("coffee_wide")[k : k + 40, :60]) for k in (0, 9, 0)]
    plain = Superpixels((9, 20))(pictures)
    several = Superpixels((9, 20), workers=1, remember=1)
    for maps, again in zip(plain, several(pictures)):
        np.testing.assert_array_equal(maps, again)
    assert len(several._kept) == 1
    several.close()


def test_many_phrases_and_pictures_at_once_are_each_alone():
    model = small_model()
    localizer = SlicVit(model, boxes=2, **SMALL)
    pictures = [
        picture("coffee_wide")[:200, :300],
        picture("astronaut_tall"),
        picture("coffee_wide"),
    ]
    phrases = [["a cup", "a spoon"], ["a woman"], []]
    together = localizer(pictures, phrases)
    assert [len(found) for found in together] == [2, 1, 0]
    for image, spoken, found in zip(pictures, phrases, together):
        for phrase, one in zip(spoken, found):
            alone = SlicVit(model, boxes=2, **SMALL)([image], [[phrase]])[0][0]
            np.testing.assert_allclose(alone.heat, one.heat, atol=1e-5)
            np.testing.assert_array_equal(alone.boxes, one.boxes)


def naive(vit, image, maps, grid):
    """The published algorithm as it is written: N masks, an N x (patches + N) attention mask."""
    x, _ = vit.tokens(image, 2, padded=True)
    steps = [torch.arange(g) * n // g for g, n in zip(grid, maps.shape[1:])]
    masks = [maps[level] == k for level in range(len(maps)) for k in range(maps[level].max() + 1)]
    own = torch.stack([torch.from_numpy(m)[steps[0]][:, steps[1]].flatten() for m in masks])
    count = len(own)
    mask = torch.full((count, own.shape[1] + count), -100.0)
    mask[:, : own.shape[1]][own] = 0
    mask[torch.arange(count), own.shape[1] + torch.arange(count)] = 0
    g = x[:, :1].repeat(1, count, 1)
    for block in vit.blocks:
        q, k, v = block.split(block.qkv(torch.cat([x[:, 1:], g], 1)))
        seen = torch.nn.functional.scaled_dot_product_attention(q[:, :, -count:], k, v, mask)
        g = block.finish(g + block.joined(seen))
        x = block.finish(x + block.attend(block.qkv(x)))
    return vit.project(g)[0]


@pytest.mark.parametrize("start_block", [0, 1])
def test_the_restructured_forward_is_the_naive_one(start_block):
    localizer = SlicVit(small_model(), membership="sampled", **SMALL)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    maps = label_maps(image[0].permute(1, 2, 0).numpy(), (5, 9))
    pairs = pair_up(maps, (8, 8))
    with torch.no_grad():
        rows = embed_segments(localizer.vit, image, [pairs], start_block=start_block)[0]
        if start_block == 0:
            expected = naive(localizer.vit, image, maps, (8, 8))
            torch.testing.assert_close(rows[torch.from_numpy(pairs.index)], expected)
    assert rows.shape == (pairs.distinct, 16)


def test_tokens_by_area_leave_no_segment_empty():
    small = np.ascontiguousarray(picture("coffee_wide")[::2, ::3])
    maps = label_maps(small, LEVELS[:6])
    sampled, area = pair_up(maps, (8, 8)), pair_up(maps, (8, 8), "area")
    assert len(np.unique(area.segment)) == area.distinct == len(area.index)
    empty = sampled.distinct - len(np.unique(sampled.segment))
    assert empty == 1  # one for all that own nothing
    share = np.exp(area.bias)
    assert share.min() > 0 and share.max() <= 1
    for level, start in enumerate(area.starts):  # in each level the shares of a cell sum to 1
        stop = [*area.starts, area.distinct][level + 1]
        rows = (area.segment >= start) & (area.segment < stop)
        np.testing.assert_allclose(np.bincount(area.token[rows], share[rows]), 1, rtol=1e-5)


def test_a_cold_temperature_does_not_overflow():
    maps = np.zeros((1, 4, 4), np.int32)
    maps[0, 2:] = 1
    pairs = pair_up(maps, (4, 4))
    heat = heat_map(np.array([0.9, 0.1], np.float32), maps, pairs, 0.001)
    assert np.isfinite(heat).all() and heat[0, 0] == pytest.approx(1) and heat[3, 3] == 0


def test_other_sizes_shapes_and_prompts():
    wide = picture("coffee_wide")[:100]
    located = SlicVit(
        small_model(), aspect="keep", size=64, templates=("{}", "a photo of {}"), **SMALL
    )([wide], [["a cup"]])[0][0]
    assert located.heat.shape == (16, 64)
    x1, y1, x2, y2 = located.boxes[0]
    assert 0 <= x1 < x2 <= 600 and 0 <= y1 < y2 <= 100


def test_it_runs_in_bf16_without_a_graph_and_prints():
    localizer = SlicVit(small_model(), precision="bf16", **SMALL)
    plain = SlicVit(small_model(), **SMALL)
    image = picture("astronaut_tall")[:64, :64]
    low, high = (one([image], [["a woman"]])[0][0].heat for one in (localizer, plain))
    assert np.corrcoef(low.ravel(), high.ravel())[0, 1] > 0.95
    _, _, rows = localizer.embed([image])[0]
    assert not rows.requires_grad and not localizer.model.training
    assert "ScratchVit" in repr(localizer.model.eval())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"published": "vit15/flickr"}, "vit14/flickr"),
        ({"aggregation": "sum"}, "median"),
        ({"temperature": 0.0}, "above 0"),
        ({"levels": []}, "Levels"),
        ({"membership": "some"}, "area"),
        ({"upsample": 3}, "divide the patch"),
        ({"start_block": 9}, "0 ... 1"),
        ({"size": 33}, "multiples of 8"),
        ({"templates": ["a photo"]}, "{}"),
        ({"colour": 1}, "no field"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(UserError) as error:
        SlicVit(small_model(), **(SMALL | options))([np.zeros((9, 9, 3), np.uint8)], [["a"]])
    assert words in str(error.value)


def test_bad_input():
    localizer = SlicVit(small_model(), **SMALL)
    with pytest.raises(UserError, match="empty"):
        localizer([np.zeros((9, 9, 3), np.uint8)], [["  "]])
    with pytest.raises(UserError, match="uint8"):
        localizer([np.zeros((9, 9, 3), np.float32)], [["a"]])
    grey, line = np.zeros((20, 30), np.uint8), np.zeros((1, 50, 3), np.uint8)
    for image in (grey, line):
        found = localizer([image], [["a"]])[0][0]
        assert found.boxes.shape == (1, 4) and np.isfinite(found.boxes).all()
        assert (found.boxes[0, 2:] <= (image.shape[1], image.shape[0])).all()
    long = localizer([grey], [["word " * 90]])[0][0]
    assert "cut" in long.notes[0]
    pooled = small_model(image_size=32, patch=8, width=32, depth=1, heads=2, pool="mean")
    with pytest.raises(UserError, match="maskclip"):
        SlicVit(pooled)
