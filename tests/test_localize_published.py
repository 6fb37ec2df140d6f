"""Every published number of localization that is at hand, in full; a part of them is in golden/.

VISLANG_TEST_GOLDEN names the folder that holds `localization/`; without it these are skipped.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from localize_cases import open_clip_config, picture
from vislang.localize import owl as owls
from vislang.localize import regionclip as regions
from vislang.localize.proposals import Proposals, selective_search
from vislang.localize.resnet import Resnet
from vislang.localize.slicvit import SlicVit

NAMED = os.environ.get("VISLANG_TEST_GOLDEN", "")
FOLDER = Path(NAMED) / "localization"
pytestmark = pytest.mark.skipif(
    not NAMED or not FOLDER.is_dir(), reason="needs the golden numbers: set VISLANG_TEST_GOLDEN"
)
THEIRS = {"search": "coarse_to_fine", "corners": "indices", "membership": "sampled", "half": True}


def listed() -> dict[tuple[str, str, str], list[dict]]:
    """(architecture, variant, picture) -> its cases, as far as their files are there."""
    if not NAMED or not FOLDER.is_dir():
        return {}
    found: dict[tuple[str, str, str], list[dict]] = {}
    for case in json.loads((FOLDER / "slicvit_cases.json").read_text())["cases"]:
        if (FOLDER / f"case_{case['key']}.npz").is_file():
            key = (case["arch"], case["variant"], case["image"])
            found.setdefault(key, []).append(case)
    return found


CASES = listed()


def state(name: str) -> dict[str, torch.Tensor]:
    """Weights of the golden folder."""
    file = np.load(FOLDER / f"weights_{name}.npz")
    return {key: torch.from_numpy(np.asarray(file[key], np.float32).copy()) for key in file.files}


@cache
def model(name: str, **vision):
    """A dual encoder with the golden image side; of a ViT the text side, too."""
    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model

    config = open_clip_config(**vision)
    options = {"config": config}
    text = TowerConfig(name="open_clip", options=options, head="none")
    if "layers" in vision and isinstance(vision["layers"], tuple):
        text = TowerConfig(
            name="scratch_text", options={"width": 32, "depth": 1, "heads": 2}, head="linear"
        )
    image = TowerConfig(name="open_clip", options=options, head="none")
    made = build_model(ModelConfig(image=image, text=text, width=64)).eval()
    weights = state(name)
    mine = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
    inner = made.image.tower.model
    told = inner.load_state_dict(mine or weights, strict=False)
    assert not told.missing_keys or name.startswith(("rn", "region")), told
    return made


def arch(name: str):
    """The golden ViT of this name."""
    about = json.loads((FOLDER / "slicvit_cases.json").read_text())["arch"][name]
    return model(
        name, layers=about["layers"], width=about["width"], patch_size=about["patch"],
        head_width=about["width"] // about["vision_heads"],
    )  # fmt: skip


@pytest.mark.parametrize("key", CASES, ids="/".join)
def test_slicvit_is_the_published_one(key):
    name, _, image = key
    cases = CASES[key]
    options = dict(cases[0]["config"])
    options["levels"] = options.pop("n_segments")
    if options["aggregation"] == "min":
        options["aggregation"] = "negative_min"
    localizer = SlicVit(arch(name), **options, **THEIRS)
    files = [np.load(FOLDER / f"case_{case['key']}.npz") for case in cases]
    for case, file in zip(cases, files):
        text = torch.nn.functional.normalize(torch.from_numpy(file["text_feature"]), dim=0)
        localizer.phrases._kept[case["prompt"]] = (text, ())
    spoken = [case["prompt"] for case in cases]
    ((maps, pairs, rows),) = localizer.embed([picture(image)])
    assert [int(m.max()) + 1 for m in maps] == cases[0]["masks_per_level"]
    scores, _ = localizer.scores(rows, spoken)
    found = localizer([picture(image)], [spoken])[0]
    for k, (one, file) in enumerate(zip(found, files)):
        np.testing.assert_allclose(scores[pairs.index, k], file["scores"], atol=2e-6)
        np.testing.assert_allclose(one.heat, file["heatmap"], atol=2e-5)
        np.testing.assert_allclose(one.boxes, file["box"], atol=1e-3)


def resnet_cases() -> list[dict]:
    """Cases of the ResNets."""
    return json.loads((FOLDER / "resnet_cases.json").read_text()) if CASES else []


@pytest.mark.parametrize("case", resnet_cases(), ids=lambda case: case["key"])
def test_resnets_are_the_published_ones(case):
    net = model("rn_tiny", layers=(1, 2, 1, 1), width=8, head_width=64)
    theirs = {"stretch": False, "search": "coarse_to_fine", "corners": "indices"}
    about = case["cfg"]
    localizer = Resnet(
        net, dilated=about.get("high_res", True), alpha=about["alpha"],
        temperature=about["temperature"], **theirs,
    )  # fmt: skip
    file = np.load(FOLDER / f"case_{case['key']}.npz")
    text = torch.nn.functional.normalize(torch.from_numpy(file["text_feature"]), dim=0)
    localizer.phrases._kept["it"] = (text, ())
    found = localizer([picture(case["image"])], [["it"]])[0][0]
    np.testing.assert_allclose(found.heat, file["heatmap"], rtol=2e-3)
    np.testing.assert_allclose(found.boxes, file["box"], atol=1e-3)


def test_selective_search_ranks_as_published():
    numbers = np.load(FOLDER / "ss_baseline.npz")
    localizer = Proposals(arch("vit14"), shifted=True, corners="indices", boxes=100)
    doc = {}  # the phrase -> its embedding, from any case that asked for it
    for cases in CASES.values():
        for case in cases:
            if case["arch"] == "vit14":
                doc[case["prompt"]] = np.load(FOLDER / f"case_{case['key']}.npz")["text_feature"]
    for about in json.loads((FOLDER / "ss_baseline.json").read_text()):
        image, text = numbers[f"{about['key']}_image"], torch.from_numpy(doc[about["prompt"]])
        boxes, sizes = selective_search(image, about["scale"], about["sigma"], about["min_size"])
        np.testing.assert_array_equal(boxes, numbers[f"{about['key']}_all_boxes"])
        np.testing.assert_array_equal(sizes, numbers[f"{about['key']}_sizes"])
        localizer.phrases._kept["it"] = (torch.nn.functional.normalize(text, dim=0), ())
        rows = localizer.embed(image, boxes[:100])
        cosine = torch.nn.functional.normalize(rows, dim=-1) @ localizer.phrases._kept["it"][0]
        order = np.argsort(-cosine.numpy(), kind="stable")
        ranked = numbers[f"{about['key']}_ranked"]
        assert (boxes[:100][order] == ranked).all(1).mean() > 0.9  # near ties may change places
        np.testing.assert_array_equal(boxes[:100][order][0], about["top1"])


def test_regions_are_embedded_as_published():
    numbers = np.load(FOLDER / "regionclip_tiny.npz")
    net = model("regionclip_tiny", layers=(1, 2, 1, 1), width=8, head_width=64).image.tower.model
    with torch.no_grad():
        features = regions.stem_features(net, torch.from_numpy(numbers["input_tensor"]))
        np.testing.assert_allclose(features, numbers["res4"], atol=1e-4, rtol=1e-3)
        rows = regions.region_embeddings(net, features, [torch.from_numpy(numbers["boxes"])])
    np.testing.assert_allclose(rows, numbers["region_emb"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", owls.TYPES)
def test_owls_are_the_librarys(kind):
    import transformers as t

    about = json.loads((FOLDER / "owl_config.json").read_text())[kind]
    classes = {"owlvit": (t.OwlViTConfig, t.OwlViTForObjectDetection),
               "owlv2": (t.Owlv2Config, t.Owlv2ForObjectDetection)}  # fmt: skip
    config, build = classes[kind]
    made = build(config(**{k: about[k] for k in ("text_config", "vision_config")},
                        projection_dim=about["projection_dim"]))  # fmt: skip
    made.load_state_dict(state(f"{kind}_tiny"), strict=False)
    numbers = np.load(FOLDER / f"{kind}_tiny.npz")
    localizer = owls.Owl(made, kind, fit="squash" if kind == "owlvit" else "pad")
    for name in ("astronaut_tall", "coffee_wide"):
        pixels = localizer.pixels([picture(name)])
        np.testing.assert_allclose(pixels, numbers[f"{name}_pixel_values"], atol=1e-5)
        ((_, boxes),) = localizer.look([picture(name)])
        np.testing.assert_allclose(boxes, numbers[f"{name}_pred_boxes"][0], atol=1e-5)
