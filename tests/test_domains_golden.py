"""Domains against the pictures of the program that they come from (not part of this project)."""

import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from vislang.data.domains import CIFAR, DOMAINS, apply_domains, open_domains
from vislang.data.domains.apply import operation
from vislang.data.domains.background import find_foreground, overlap
from vislang.data.domains.fog import draw_fog, fog_discs
from vislang.data.domains.geometry import tilt, tilt_by, turn
from vislang.data.prompts import fill, read_prompts

EXACT = (
    "noop", "blur", "brighten", "closeup", "dim", "fisheye", "grayscale", "low_res", "posterize",
    "sepia", "sketchify", "upside_down",
)  # fmt: skip
BACKGROUNDS = ("make_background_black", "make_background_blue", "make_background_white")


@pytest.fixture(scope="session")
def golden(test_data) -> Path:
    folder = test_data.parent / "golden" / "domains"
    if not folder.is_dir():
        pytest.skip(f"needs the golden pictures in {folder}")
    return folder


@pytest.fixture(scope="session")
def report(golden) -> dict:
    return json.loads((golden / "augs/report.json").read_text())["images"]


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class Python:
    """Python's generator with numpy's names, for draws as the authors made them."""

    def __init__(self, seed: int):
        self.draw = random.Random(seed)
        self.choice, self.uniform = self.draw.choice, self.draw.uniform

    def integers(self, low: int, high: int) -> int:
        return self.draw.randint(low, high - 1)


class Legacy(np.random.RandomState):
    """numpy's old generator with the new name."""

    integers = np.random.RandomState.randint


def test_twelve_domains_and_the_backgrounds_are_equal_pixel_by_pixel(golden, report):
    domains = open_domains([*EXACT, *BACKGROUNDS], axes="original")
    for name in report:
        pixels = read(golden / f"augs/{name}/noop.png")
        made = apply_domains(pixels, domains, seed=0, id=name)
        for domain, picture in zip(domains, made):
            there = read(golden / f"augs/{name}/{domain.name}.png")
            np.testing.assert_array_equal(picture, there, err_msg=f"{name} {domain.name}")


def test_masks_are_those_of_successive_calls(golden, report):
    for name in report:
        pixels = read(golden / f"augs/{name}/noop.png")
        mask = find_foreground(pixels, "original") > 0
        for call in range(3):
            there = cv2.imread(str(golden / f"augs/{name}/segment_mask_call{call}.png"), 0) > 0
            assert overlap(mask, there) == 1
        assert 0.3 < overlap(mask, find_foreground(pixels) > 0) < 0.8  # the axes matter


def test_random_domains_are_equal_once_the_draw_is_known(golden, report):
    for name, about in report.items():
        pixels = read(golden / f"augs/{name}/noop.png")
        quarters = about["sideways"]["recovered_k"][0]
        there = read(golden / f"augs/{name}/sideways.png")
        np.testing.assert_array_equal(turn(pixels, quarters), there)
        turned = tilt_by(pixels, about["tilt"]["recovered_angle_deg"]).astype(int)
        far = np.abs(turned - read(golden / f"augs/{name}/tilt.png"))
        assert far.max() <= about["tilt"]["max_abs"]
        assert far.mean() <= about["tilt"]["mean_abs"] * 1.0001
        seeded = read(golden / f"augs/{name}/tilt_seed0.png")
        np.testing.assert_array_equal(tilt(pixels, Python(0), 10, 20), seeded)


def test_fog_draws_and_paints_the_same_discs(golden, report):
    for name, about in report.items():
        pixels = read(golden / f"augs/{name}/noop.png")
        draw = Python(0)
        draw.draw.random(), draw.draw.random()  # whether to draw fog at all, and how dense
        discs = fog_discs(*pixels.shape[:2], draw, 0.9)
        assert discs == [tuple(disc) for disc in about["foggy_seed0"]["haze_list"]]
        there = read(golden / f"augs/{name}/foggy_seed0.png")
        np.testing.assert_array_equal(draw_fog(pixels, discs, 0.9, 0.08), there)
        stats = about["foggy_stats_20_seeds"]
        means = [
            apply_domains(pixels, [DOMAINS["foggy"]], seed=seed, id="a")[0].mean()
            for seed in range(8)
        ]
        width = stats["seeded_mean_max"] - stats["seeded_mean_min"]
        assert stats["seeded_mean_min"] - width < min(means)
        assert max(means) < stats["seeded_mean_max"] + width


@pytest.mark.parametrize("name", ["brightness", "contrast", "jpeg", "pixelate", "saturate",
                                  "fog", "spatter", "elastic"])  # fmt: skip
def test_corrupted_cifar(golden, name):
    given = np.load(golden / "cifar_corruptions.npz")
    key = {"jpeg": "JPEG"}.get(name, name.capitalize())
    there = given[key] if key in given else given[f"{key}_npseed0"]
    row = CIFAR[name]
    function, wanted = operation(row.operation)
    arguments = dict(row.parameters[3]) | ({"rng": Legacy(0)} if "rng" in wanted else {})
    made = function(given["input_rgb"], **arguments)
    far = np.abs(made.astype(int) - there.astype(int))
    assert far.max() <= 1, far.max()


def test_prompts(golden):
    given = json.loads((golden / "prompts.json").read_text())
    ours = {name: list(domain.templates) for name, domain in DOMAINS.items()}
    assert ours == {
        name: [text.replace("%s", "{}") for text in texts]
        for name, texts in given["templates"].items()
    }
    assert sum(map(len, ours.values())) == given["n_templates"] == 30
    for name, texts in given["example"].items():
        assert [fill(t, "great white shark") for t in ours[name]] == texts
    assert len(read_prompts("openai_imagenet")) == 80
