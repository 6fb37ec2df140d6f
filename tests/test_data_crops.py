"""Multi-crop: small views with an augment and a size of their own, refused where they cannot be."""

import math

import pytest
import torch

from mixed import SMALL, Mixed, make, same
from vislang.data.batches import Batches
from vislang.data.order import sample_rng
from vislang.data.pieces import views
from vislang.data.sources import open_source
from vislang.data.transforms import build_augment
from vislang.errors import UserError
from vislang.preprocess import Preprocess

CROPS = ("image", "image_2", *(f"image_crop_{i + 1}" for i in range(11)))
MULTI = {"needs": CROPS, "tokenizer": None, "crop_size": 8}


def test_views_come_in_the_order_of_their_numbers():
    """The tenth after the ninth, or an objective's needs would depend on how many there are."""
    assert views(reversed(CROPS), "image") == list(CROPS)
    many = ("text", *(f"image_{i}" for i in (10, 9, 2)), "image", "image_crop_1")
    assert views(many, "image") == ["image", "image_2", "image_9", "image_10", "image_crop_1"]


def test_crops_have_their_own_size():
    batches = make(**MULTI)
    assert batches.image_sizes == [(8, 8), (16, 16)]
    batch = next(batches.start())
    rows = len(batch["id"])
    for key in CROPS:
        side = 8 if "crop" in key else 16
        assert batch[key].shape == (rows, 3, side, side) and batch[key].dtype == torch.uint8
    crops = {batch[key][0].numpy().tobytes() for key in CROPS[2:]}
    assert len(crops) == 11  # all different
    own = next(make(**{**MULTI, "crop_size": 0}).start())
    assert own["image_crop_1"].shape == (rows, 3, 16, 16)


def test_crops_have_their_own_augment():
    options = {"augment": "clip", "crop_augment": "simclr", "crop_augment_options": {"grey": 1.0}}
    batch = next(make(**MULTI, **options).start())

    def spread(images: torch.Tensor) -> int:
        return int((images.int().amax(1) - images.int().amin(1)).max())

    assert spread(batch["image_crop_3"]) <= 1 < spread(batch["image_2"])
    mixed = next(make(**MULTI, crop_augment="none,simclr").start())
    assert not torch.equal(mixed["image_crop_1"], mixed["image_crop_2"])


def test_more_crops_change_no_other_view():
    fewer = next(make(**{**MULTI, "needs": CROPS[:4]}).start(1))
    more = next(make(**MULTI).start(1))
    for key in CROPS[:4]:
        assert torch.equal(fewer[key], more[key]), key


@pytest.mark.parametrize("workers", [1, 3])
def test_crops_are_the_same_for_any_workers_and_ranks(workers, monkeypatch):
    monkeypatch.setattr("vislang.data.crew.PIECE", 2)
    one = list(make(**MULTI).start(1, 2))
    batches = make(workers=workers, **MULTI)
    for left, right in zip(batches.start(1, 2), one, strict=True):
        same(left, right)
    batches.close()
    ranks = [make(rank=r, world=3, **MULTI).start(1, 2) for r in range(3)]
    for batch, *parts in zip(one, *ranks, strict=True):
        for key in CROPS:
            assert torch.equal(torch.cat([part[key] for part in parts]), batch[key])


def test_small_crops_are_decoded_large_enough():
    """libjpeg's scaling serves all views, so it goes by the one that needs most."""
    batches = make(**{**MULTI, "crop_size": 96}, crop_augment_options={"scale": [0.05, 0.14]})
    assert batches._pieces.min_side == math.ceil(96 / math.sqrt(0.05 * 3 / 4))


def test_crop_areas_are_dinos_and_swavs():
    """How much of a picture a crop shows, told by a picture whose pixels are its columns."""
    import numpy as np

    picture = np.zeros((200, 200, 3), np.uint8)
    picture[...] = np.arange(200, dtype=np.uint8)[None, :, None]
    still = {"jitter": [0, 0, 0, 0], "grey": 0, "blur": 0, "ratio": [1.0, 1.0]}
    for scale, low, high in [(None, 0.05, 0.4), ([0.05, 0.14], 0.05, 0.14)]:
        options = still | ({"scale": scale} if scale else {})
        augment = build_augment("local_crop", Preprocess((20, 20)), options)
        widths = []
        for i in range(300):
            view = augment(picture, sample_rng(0, 0, i)).float()
            widths.append(float(view.amax() - view.amin()) * 20 / 19)
        area = (np.array(widths) / 200) ** 2
        assert low * 0.8 < area.min() < low * 1.5 and high * 0.8 < area.max() < high * 1.2


def test_light_is_as_protoclip_says():
    """Specification 1.13: crop of 50-100 %, flip, and with chance 0.2 each: jitter, grey, blur."""
    light = build_augment("light", Preprocess((16, 16)))
    assert (light.scale, light.interpolation, light.flip) == ((0.5, 1.0), "bicubic", 0.5)
    assert (light.jitter, light.jitter_chance) == ((0.8, 0.8, 0.8, 0.2), 0.2)
    assert (light.grey, light.blur, light.sigma) == (0.2, 0.2, (0.1, 2.0))
    drawn = [[name for name, _ in light._draw_changes(sample_rng(0, 0, i))] for i in range(2000)]
    for name in ("turn_hue", "change_brightness", "blur"):
        assert abs(sum(name in changes for changes in drawn) / 2000 - 0.2) < 0.03
    assert abs(sum(not changes for changes in drawn) / 2000 - 0.8**3) < 0.04


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augment": "none"},
            "The views image, image_2 would be identical: augment is 'none' for them. Set augment"
            " to a random one (clip, ",
        ),
        (
            {"augment": "simclr,none,none", "needs": ("image", "image_2", "image_3")},
            "The views image_2, image_3 would be identical: augment is 'none'",
        ),
        (
            {"crop_augment": "none"},
            "The views image_crop_1, image_crop_2, image_crop_3, image_crop_4, image_crop_5,",
        ),
        ({"crop_augment": "local"}, "No augment is called 'local'. Did you mean 'local_crop'?"),
        ({"crop_size": -8}, "crop_size must be pixels, or 0 for the tower's own size; got -8."),
        ({"crop_augment_options": {"scal": 1}}, "The augment 'local_crop' has no option 'scal'."),
    ],
)
def test_impossible_views_are_refused_before_the_first_batch(options, message):
    with pytest.raises(UserError) as caught:
        make(**{**MULTI, **options})
    assert str(caught.value).startswith(message)


class Paired(Mixed):
    """The partner of a sample is the one before it."""

    def partner(self, index: int, rng):
        return self[(index - 1) % 30]


def test_plain_views_of_two_samples_are_allowed():
    """A picture and its neighbour differ without any augment; three views would not."""
    batch = next(make(Paired(), augment="none", needs=("image", "image_2")).over([10, 11, 12]))
    assert torch.equal(batch["image"][0], batch["image_2"][1])
    with pytest.raises(UserError, match=r"The views image, image_3 would be identical"):
        make(Paired(), augment="none", needs=("image", "image_2", "image_3"))
    with pytest.raises(UserError, match=r"The views image_2, image_4 would be identical"):
        make(Paired(), augment="simclr,none,simclr,none", needs=("image_2", "image_4", "image",
             "image_3"))  # fmt: skip


def test_one_plain_view_beside_random_ones_is_allowed():
    batch = next(make(**{**MULTI, "augment": "none,simclr"}).start())
    plain = next(make(needs=("image",), augment="none", tokenizer=None).start())
    assert torch.equal(batch["image"], plain["image"])


# --- what a source lacks is said with what would give it -----------------------------------------


class Plain(Mixed):
    name, gives, classes = "plain", frozenset({"image"}), ()


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (("image", "label"), "(clip and siglip need images and captions only; dino, swav and nt"),
        (("image", "text"), "(dino, swav, ntxent, byol and simsiam need images only)"),
        (("image", "text"), "Layouts that can give image, text: digits, "),
    ],
)
def test_a_missing_need_names_layouts_and_objectives(needs, said):
    with pytest.raises(UserError) as caught:
        make(Plain(), needs=needs)
    assert said in str(caught.value)


def test_a_layout_that_could_give_it_says_so(tmp_path):
    from layouts import add_csv, add_files, picture

    add_files(tmp_path / "images", {"a.jpg": picture(0)})
    table = add_csv(tmp_path / "t.csv", [["image", "caption"], ["images/a.jpg", "a"]])
    with pytest.raises(UserError, match="Its layout, table, gives it where the files have it"):
        Batches(open_source(table), 1, needs=("image", "label"), image=SMALL)
