"""Transforms against Pillow and torchvision, number by number; augmentation by its promises."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pictures import jpeg, pixels
from vislang import resize as resizing
from vislang.data import AUGMENTS
from vislang.data import pixels as operations
from vislang.data.augment import Augment, crop_box
from vislang.data.decode import Limits, decode_scaled
from vislang.data.order import sample_rng
from vislang.data.sample import BadSample, Sample
from vislang.data.transforms import build_augment, evaluation_min_side, prepare_sample
from vislang.errors import UserError
from vislang.preprocess import FITS, INTERPOLATIONS, Preprocess
from vislang.resize import fitted_size, prepare_image

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def with_pillow(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """open_clip's evaluation transform, written with torchvision on Pillow images."""
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    picture = Image.fromarray(image)
    resample, size = PILLOW[preprocess.interpolation], preprocess.size
    if preprocess.fit == "squash":
        return np.asarray(picture.resize((size[1], size[0]), resample))
    if preprocess.fit == "longest":
        ratio = max(picture.height / size[0], picture.width / size[1])
        picture = picture.resize(
            (round(picture.width / ratio), round(picture.height / ratio)), resample
        )
        left, top = (size[1] - picture.width) // 2, (size[0] - picture.height) // 2
        canvas = Image.new("RGB", (size[1], size[0]), (preprocess.fill,) * 3)
        canvas.paste(picture, (left, top))
        return np.asarray(canvas)
    interpolation = {"bicubic": 3, "bilinear": 2, "nearest": 0}[preprocess.interpolation]
    scaled = transforms.resize(
        picture, [math.floor(size[0] / preprocess.crop_fraction)], interpolation
    )
    return np.asarray(transforms.center_crop(scaled, list(size)))


SHAPES = [(48, 64), (64, 48), (50, 50), (33, 97), (20, 20), (224, 301), (16, 90)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_prepare_image_is_pillows_within_one_level(shape, fit, interpolation):
    preprocess = Preprocess((32, 32), interpolation=interpolation, fit=fit, fill=7)
    image = pixels(1, *shape)
    got = prepare_image(image, preprocess)
    assert got.dtype == torch.uint8 and got.shape == (3, 32, 32) and got.is_contiguous()
    difference = got.permute(1, 2, 0).numpy().astype(int) - with_pillow(image, preprocess)
    assert abs(difference).max() <= (0 if interpolation == "nearest" else 1)


def test_crop_fraction_scales_a_little_larger():
    preprocess = Preprocess((28, 28), crop_fraction=0.875)
    image = pixels(2, 60, 80)
    difference = prepare_image(image, preprocess).permute(1, 2, 0).numpy().astype(int)
    assert abs(difference - with_pillow(image, preprocess)).max() <= 1


@settings(max_examples=60)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), size=st.tuples(*[st.integers(1, 40)] * 2),
    fit=st.sampled_from(FITS), fraction=st.sampled_from([1.0, 0.875]),
)  # fmt: skip
def test_any_picture_fits_any_size(height, width, size, fit, fraction):
    preprocess = Preprocess(size, fit=fit, crop_fraction=fraction)
    assert prepare_image(pixels(0, height, width), preprocess).shape == (3, *size)


def test_an_extreme_strip_is_cut_before_it_is_scaled(monkeypatch):
    sizes = []
    real = resizing.resize
    monkeypatch.setattr(
        resizing, "resize", lambda p, h, w, *rest: sizes.append((h, w)) or real(p, h, w, *rest)
    )
    image = np.full((2, 20_000, 3), 9, np.uint8)
    assert (prepare_image(image, Preprocess((64, 64))) == 9).all()
    assert sizes == [(64, 1024)]


def test_unknown_fit_and_interpolation_are_named():
    with pytest.raises(UserError, match="fit must be one of shortest, squash, longest, got 'x'"):
        prepare_image(pixels(), Preprocess(fit="x"))
    with pytest.raises(UserError, match="interpolation must be one of bicubic, bilinear, nearest"):
        prepare_image(pixels(), Preprocess(interpolation="area"))


@pytest.mark.parametrize("shape", [(512, 683), (767, 512), (513, 769), (1000, 1500)])
def test_scaled_decoding_changes_an_evaluation_image_by_less_than_a_level(shape):
    """Also where the decoder rounds 683 / 2 up to 342: the half pixel is accounted for."""
    preprocess = Preprocess((96, 96))
    data = jpeg(3, *shape)
    decoded = decode_scaled(data, Limits(), evaluation_min_side(preprocess))
    assert decoded.pixels.shape[0] < shape[0]  # it was scaled
    expected = with_pillow(np.asarray(Image.open(io.BytesIO(data))), preprocess)
    got = prepare_image(decoded.pixels, preprocess, decoded.full_size).permute(1, 2, 0).numpy()
    difference = abs(got.astype(int) - expected)
    assert difference.mean() < 0.6 and difference.max() <= 12
    if shape[1] % 2:
        without = prepare_image(decoded.pixels, preprocess).permute(1, 2, 0).numpy()
        assert abs(without.astype(int) - expected).mean() > 1.2 * difference.mean()


def test_prepare_sample_is_decode_and_prepare():
    preprocess = Preprocess((32, 32))
    got = prepare_sample(Sample("a", jpeg(1)), Limits(), preprocess)
    whole = decode_scaled(jpeg(1), Limits(), None).pixels
    assert torch.equal(got, prepare_image(whole, preprocess))
    with pytest.raises(BadSample, match="b: not an image"):
        prepare_sample(Sample("b", b"?"), Limits(), preprocess)


# --- augmentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("shape", [(48, 64), (10, 200), (1, 1), (300, 7)])
def test_every_augment_keeps_its_promises(name, shape):
    augment = build_augment(name, Preprocess((24, 32)))
    image = pixels(1, *shape)
    before = image.copy()
    for index in range(5):
        got = augment(image, sample_rng(0, 0, index))
        assert got.dtype == torch.uint8 and got.shape == (3, 24, 32) and got.is_contiguous()
        assert torch.equal(got, augment(image, sample_rng(0, 0, index)))
    np.testing.assert_array_equal(image, before)
    assert augment.min_side is None or augment.min_side >= 32


def test_random_augments_differ_between_samples():
    for name in ("clip", "simclr", "global_crop"):
        augment = build_augment(name, Preprocess((16, 16)))
        got = {augment(pixels(), sample_rng(0, 0, i)).numpy().tobytes() for i in range(8)}
        assert len(got) == 8, name


def test_none_is_the_evaluation_transform():
    preprocess = Preprocess((16, 16))
    got = build_augment("none", preprocess)(pixels(), sample_rng(0, 0, 0))
    assert torch.equal(got, prepare_image(pixels(), preprocess))


@settings(max_examples=200)
@given(
    rows=st.integers(1, 400), columns=st.integers(1, 400), seed=st.integers(0, 2**32),
    low=st.floats(0.05, 1.0),
)  # fmt: skip
def test_crops_lie_inside_and_are_never_enlarged_needlessly(rows, columns, seed, low):
    """The decoded picture, scaled as `min_side` allows, has the target's pixels in any crop."""
    ratio = (3 / 4, 4 / 3)
    top, left, height, width = crop_box(
        (rows, columns), (low, 1.0), ratio, np.random.default_rng(seed)
    )
    assert top >= 0 and top + height <= rows and left >= 0 and left + width <= columns
    assert height >= 1 and width >= 1
    # what min_side promises: no side of a crop is shorter than this part of the shorter side
    part = math.sqrt(low * ratio[0])
    assert min(height, width) >= part * min(rows, columns) - 1


def test_crop_areas_and_ratios_are_in_their_ranges():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box((1000, 1000), (0.2, 0.9), (0.5, 2.0), rng) for _ in range(2000)])
    area, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.199 < area.min() < 0.22 and 0.85 < area.max() < 0.901
    assert 0.49 < ratio.min() < 0.55 and 1.85 < ratio.max() < 2.02
    assert abs(np.log(ratio).mean()) < 0.05


def test_min_side_follows_the_smallest_crop():
    assert build_augment("clip", Preprocess((224, 224))).min_side == math.ceil(
        224 / math.sqrt(0.9 * 3 / 4)
    )
    assert build_augment("simclr", Preprocess((64, 64))).min_side == math.ceil(
        64 / math.sqrt(0.2 * 3 / 4)
    )


def test_flip_has_its_chance_and_does_nothing_else():
    preprocess = Preprocess((48, 64))
    whole = {"scale": (1.0, 1.0), "ratio": (64 / 48, 64 / 48)}
    plain = build_augment("clip", preprocess, whole)(pixels(), sample_rng(0, 0, 0))
    flipped = Augment(preprocess, flip=1.0, **whole)(pixels(), sample_rng(0, 0, 0))
    assert torch.equal(flipped, plain.flip(-1))
    half = Augment(preprocess, flip=0.5, **whole)
    count = sum(torch.equal(half(pixels(), sample_rng(0, 0, i)), flipped) for i in range(200))
    assert 70 < count < 130


def test_grey_makes_equal_channels():
    got = build_augment("simclr", Preprocess((16, 16)), {"grey": 1.0})
    image = got(pixels(), sample_rng(0, 0, 0)).int()
    assert (image.max(0).values - image.min(0).values).max() <= 1


FACTORS = [0.0, 0.3, 1.0, 1.7]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation"])
def test_colour_changes_are_torchvisions(what, factor):
    reference = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.from_numpy(pixels(3)).permute(2, 0, 1).float()
    expected = getattr(reference, f"adjust_{what}")(image / 255, factor) * 255
    got = getattr(operations, f"change_{what}")(image, factor)
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.33, 0.5])
def test_hue_is_torchvisions(turn):
    reference = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.from_numpy(pixels(3)).permute(2, 0, 1).float()
    expected = reference.adjust_hue(image / 255, turn) * 255
    torch.testing.assert_close(operations.turn_hue(image, turn), expected, atol=0.02, rtol=0)


def test_hue_leaves_grey_alone():
    image = torch.full((3, 4, 4), 77.0)
    assert torch.equal(operations.turn_hue(image, 0.3), image)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_torchvisions(sigma):
    reference = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.from_numpy(pixels(3)).permute(2, 0, 1).float()
    size = 2 * max(1, round(3 * sigma)) + 1
    expected = reference.gaussian_blur(image, [size, size], [sigma, sigma])
    torch.testing.assert_close(operations.blur(image, sigma), expected, atol=0.01, rtol=1e-4)


def test_unknown_names_and_options_have_a_nearest():
    with pytest.raises(UserError, match=r"No augment is called 'simclar'\. Did you mean 'simclr'"):
        build_augment("simclar", Preprocess())
    with pytest.raises(UserError, match=r"'clip' has no option 'flipp'\. Did you mean 'flip'\?"):
        build_augment("clip", Preprocess(), {"flipp": 0.5})
    with pytest.raises(UserError, match=r"'none' has no option 'scale'\. Known: none\."):
        build_augment("none", Preprocess(), {"scale": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.5, 0.2)}, r"scale must be \[low, high\] with 0 < low <= high <= 1"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"ratio": (2, 1)}, "ratio must be"),
        ({"flip": 1.5}, r"flip is a chance and must be in \[0, 1\], got 1.5"),
        ({"jitter": (1, 1, 1, 0.6)}, "jitter must be"),
        ({"jitter": 0.4}, "jitter must be"),
        ({"scale": 0.5}, "scale must be"),
        ({"interpolation": "area"}, "interpolation must be one of"),
    ],
)
def test_wrong_option_values_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        build_augment("clip", Preprocess(), options)


def test_fitted_size_of_rectangles_is_timms():
    assert fitted_size((100, 200), Preprocess((50, 80))) == (50, 100)
    assert fitted_size((100, 120), Preprocess((50, 80))) == (67, 80)
