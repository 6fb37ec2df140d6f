"""Every other localizer against its golden numbers, and the contract that all of them keep."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from localize_cases import GOLDEN, model_for, open_clip_config, picture, small_model
from vislang.errors import UserError
from vislang.localize import LOCALIZERS
from vislang.localize import owl as owls
from vislang.localize import regionclip as regions
from vislang.localize.dense import Dense, dense_features, neighbourhood
from vislang.localize.proposals import selective_search
from vislang.localize.region_proposals import propose, torchvision_rpn
from vislang.localize.resnet import Resnet, pixel_features
from vislang.localize.vit import open_vit
from vislang.lookup import lookup
from vislang.metrics.boxes import areas, clip_boxes

NUMBERS = np.load(GOLDEN / "localize_methods.npz")


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(NUMBERS[name])


@pytest.fixture(scope="module")
def resnet_model():
    """A dual encoder whose image side is CLIP's ResNet with the golden weights."""
    from vislang.config import ModelConfig, TowerConfig
    from vislang.models.build import build_model

    vision = {"layers": [1, 2, 1, 1], "width": 8, "head_width": 64}
    torch.manual_seed(0)
    config = open_clip_config(**vision)
    text = {"width": 32, "depth": 1, "heads": 2, "context": 16}
    model = build_model(
        ModelConfig(
            image=TowerConfig(name="open_clip", options={"config": config}, head="none"),
            text=TowerConfig(name="scratch_text", options=text, head="linear"),
            width=64,
        )
    ).eval()
    state = {
        k.removeprefix("rn.w."): torch.from_numpy(NUMBERS[k].astype(np.float32))
        for k in NUMBERS.files
        if k.startswith("rn.w.")
    }
    missing = model.image.tower.model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and len(state) > 40
    return model


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("rn_RN50_highres_coffee_wide", {"alpha": 0.8, "temperature": 0.01}),
        ("rn_denseclip_coffee_wide", {"dilated": False}),
    ],
)
def test_resnet_maps_are_the_published(resnet_model, key, options):
    published = {"stretch": False, "search": "coarse_to_fine", "corners": "indices"}
    localizer = Resnet(resnet_model, **options, **published)
    image = picture("coffee_wide")
    features, full = localizer.features([image])
    assert full == ((322, 322) if "highres" in key else (11, 11))
    np.testing.assert_allclose(
        features[0, :, ::16, ::16][:, ::3, ::3], NUMBERS[f"{key}.features"], atol=1e-4
    )
    text = torch.nn.functional.normalize(tensor(f"{key}.text"), dim=0)
    localizer.phrases._kept["the golden phrase"] = (text, ())
    found = localizer([image], [["the golden phrase"]])[0][0]
    np.testing.assert_allclose(found.heat[::16, ::16], NUMBERS[f"{key}.heat16"], rtol=1e-3)
    np.testing.assert_allclose(found.boxes, NUMBERS[f"{key}.box"], atol=1e-3)


def test_a_dilated_net_sees_what_the_strided_one_sees(resnet_model):
    """Where the picture is flat, dilation and stride compute the same."""
    net = resnet_model.image.tower.model
    flat = torch.zeros(1, 3, 224, 224)
    with torch.no_grad():
        fine, coarse = (pixel_features(net, flat, d)[0][0, :, 112, 112] for d in (True, False))
    torch.testing.assert_close(fine, coarse, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "size", "scale", "least"),
    [
        ("coffee_150x100_s500_m50", (150, 100), 500, 50),
        ("astronaut_96x128_s100_m20", (96, 128), 100, 20),
    ],
)
def test_selective_search_finds_the_golden_regions(key, size, scale, least):
    from PIL import Image

    name = "coffee_wide" if key.startswith("coffee") else "astronaut_tall"
    small = np.asarray(Image.fromarray(picture(name)).resize(size, Image.Resampling.BILINEAR))
    boxes, sizes = selective_search(small, scale, 0.9, least)
    np.testing.assert_array_equal(boxes, NUMBERS[f"ss.{key}.boxes"])
    np.testing.assert_array_equal(sizes, NUMBERS[f"ss.{key}.sizes"])


def test_regions_are_scored_and_chosen_as_the_original_does():
    logits, p = regions.class_scores(tensor("region.region_emb"), tensor("region.text_emb"))
    torch.testing.assert_close(logits, tensor("region.logits"), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(p, tensor("region.probs"), atol=2e-6, rtol=0)
    boxes, objectness = tensor("region.boxes"), tensor("region.objectness_logits")
    for name, fusion in (("plain", "none"), ("rpn", "logit")):
        found = regions.select(boxes, regions.fuse(p[:, :-1], objectness, fusion), (160, 240))
        torch.testing.assert_close(found.boxes, tensor(f"region.{name}_boxes"))
        torch.testing.assert_close(found.scores, tensor(f"region.{name}_scores"), atol=5e-6, rtol=0)
        assert (found.classes == tensor(f"region.{name}_classes")).all()
    assert (objectness < 0).any()
    for fusion in regions.FUSIONS:  # the original gives NaN here
        assert regions.fuse(p, objectness, fusion).isfinite().all()
    rows = regions.fuse(p, objectness, "sigmoid")
    assert (rows <= 1).all() and (rows[objectness < 0] > 0).any()


def test_proposals_are_chosen_as_the_original_does():
    levels = [
        [tensor(f"region.rpn_l{k}_{what}")[0] for k in (0, 1)] for what in ("boxes", "logits")
    ]
    for name, overlap, after in (
        ("rpn_nms09_pre40_post50", 0.9, 50),
        ("rpn_nms07_pre40_post20", 0.7, 20),
    ):
        boxes, logits = propose(*levels, (160, 240), overlap=overlap, before=40, after=after)
        torch.testing.assert_close(boxes, tensor(f"region.{name}_boxes"))
        torch.testing.assert_close(logits, tensor(f"region.{name}_logits"))


def test_given_boxes_take_the_place_of_proposals(resnet_model):
    localizer = regions.RegionClip(resnet_model, shorter=64, boxes=5, threshold=0.0)
    image = picture("coffee_wide")
    given = np.array([[10, 10, 200, 200], [300, 50, 500, 350]], np.float32)
    found = localizer([image], [["a cup"]], [given])[0][0]
    assert sorted(map(tuple, found.boxes.round().tolist())) == sorted(map(tuple, given.tolist()))
    with pytest.raises(UserError, match="rpn"):
        regions.RegionClip(resnet_model, proposals="rpn")


@pytest.fixture(scope="module")
def rpn(tmp_path_factory):
    """torchvision's smaller Faster R-CNN with random weights: the net, and its file."""
    from safetensors.torch import save_file
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    torch.manual_seed(0)
    net = fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=1333,
        rpn_nms_thresh=0.9, rpn_pre_nms_top_n_test=1000, rpn_post_nms_top_n_test=1000,
        rpn_score_thresh=0.0,
    ).eval()  # fmt: skip
    with torch.no_grad():  # as initialised, all logits are 0 within 1e-9
        net.rpn.head.cls_logits.weight *= 1e9
        net.rpn.head.bbox_pred.weight *= 1e8
    file = tmp_path_factory.mktemp("rpn") / "rpn.safetensors"
    parts = {k: v for k, v in net.state_dict().items() if not k.startswith("roi_heads.")}
    save_file(parts, file)
    return net, str(file)


def test_proposals_are_torchvisions(rpn):
    net, file = rpn
    run = torchvision_rpn(file, 64)
    for image in (picture("coffee_wide"), picture("astronaut_tall")):
        boxes, logits = run(image)
        with torch.no_grad():
            small, _ = net.transform([torch.from_numpy(image.copy()).permute(2, 0, 1) / 255])
            theirs = net.rpn(small, net.backbone(small.tensors))[0][0]
        size = small.image_sizes[0]
        theirs *= torch.tensor([image.shape[1] / size[1], image.shape[0] / size[0]] * 2)
        assert len(boxes) > 20 and (logits < 0).any() and (logits > 0).any()
        torch.testing.assert_close(boxes, theirs, atol=1e-2, rtol=1e-4)
        assert (boxes[:, 2:] <= torch.tensor(image.shape[1::-1]) + 1e-2).all()
    thin, _ = run(np.zeros((1, 40, 3), np.uint8))
    assert thin.isfinite().all() and (thin[:, 2:] <= torch.tensor([40.01, 1.01])).all()


@pytest.mark.parametrize("fusion", regions.FUSIONS)
def test_regions_of_an_rpn_have_finite_scores(resnet_model, rpn, fusion):
    options = {"proposals": "rpn", "rpn": rpn[1], "rpn_size": 64, "shorter": 64, "fusion": fusion}
    localizer = regions.RegionClip(resnet_model, boxes=5, threshold=0.0, batch=7, **options)
    wide = picture("coffee_wide")
    found = localizer([wide], [["a cup", "a spoon"]])[0]
    for one in found:
        assert np.isfinite(one.scores).all() and np.isfinite(one.boxes).all()
        assert (np.diff(one.scores) <= 0).all() and (one.boxes >= 0).all()
        assert (one.boxes[:, 2:] <= np.array(wide.shape[1::-1]) + 1e-2).all()
        assert fusion == "logit" or (one.scores <= 1).all()
    assert [len(one.boxes) for one in found] == [5, 5]
    given = np.array([[10, 10, 200, 200], [300, 50, 500, 350]], np.float32)
    chosen = localizer([wide], [["a cup"]], [given])[0][0]  # they need no RPN
    assert sorted(map(tuple, chosen.boxes.round().tolist())) == sorted(map(tuple, given.tolist()))
    localizer.options = replace(localizer.options, threshold=9.0)
    assert len(localizer([wide], [["a cup"]])[0][0].boxes) == 1  # the best one, all the same
    localizer.options = replace(localizer.options, at_least_one=False)
    assert not len(localizer([wide], [["a cup"]])[0][0].boxes)
    empty = localizer([wide], [["a cup"]], [np.zeros((0, 4), np.float32)])[0][0]
    assert not len(empty.boxes) and empty.notes == ("there is no proposal",)


def test_what_is_no_rpn_is_said(resnet_model, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"none")
    for name, words in (("a", "1 are strange"), ("b", "can be read"), ("c", "can be read")):
        with pytest.raises(UserError, match=words):
            regions.RegionClip(
                resnet_model, proposals="rpn", rpn=str(tmp_path / f"{name}.safetensors")
            )


@pytest.fixture(scope="module")
def tiny_owl(tmp_path_factory):
    """Random OWL-ViT and OWLv2 in transformers' own format."""
    import transformers as t

    text = {"vocab_size": 49408, "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
            "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 64, "patch_size": 16}  # fmt: skip
    folders = {}
    for kind, config, model in (
        ("owlvit", t.OwlViTConfig, t.OwlViTForObjectDetection),
        ("owlv2", t.Owlv2Config, t.Owlv2ForObjectDetection),
    ):
        torch.manual_seed(0)
        folders[kind] = tmp_path_factory.mktemp(kind)
        made = config(text_config=text, vision_config=vision, projection_dim=16)
        model(made).save_pretrained(folders[kind])
    return folders


@pytest.mark.parametrize("kind", owls.TYPES)
def test_owl_boxes_are_the_librarys(tiny_owl, kind):
    height, width = 400, 600
    scale = (width, height) if kind == "owlvit" else (width, width)
    scores, labels, boxes = owls.detections(
        tensor(f"{kind}.logits")[0], tensor(f"{kind}.pred_boxes")[0], scale
    )
    torch.testing.assert_close(scores, tensor(f"{kind}.pp_scores"))
    torch.testing.assert_close(boxes, tensor(f"{kind}.pp_boxes"))
    assert (labels == tensor(f"{kind}.pp_labels")).all()


@pytest.mark.parametrize("kind", owls.TYPES)
def test_owl_is_transformers_with_suppression(tiny_owl, kind):
    image = picture("coffee_wide")
    phrases = ["a cup of coffee", "a spoon"]
    fit = "squash" if kind == "owlvit" else "pad"
    localizer = owls.build(
        str(tiny_owl[kind]), "cpu", fit=fit, templates=["{}"], threshold=0.0, overlap=1.0, boxes=99
    )
    ids = localizer.tokenizer(phrases)
    with torch.no_grad():
        out = localizer.model(
            input_ids=ids, pixel_values=localizer.pixels([image]), attention_mask=(ids != 0).long()
        )
    (features, boxes), = localizer.look([image])  # fmt: skip
    torch.testing.assert_close(
        localizer.logits(features, phrases), out.logits[0], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(boxes, out.pred_boxes[0], atol=1e-5, rtol=0)
    found = localizer([image], [phrases])[0]
    scale = (600, 400) if kind == "owlvit" else (600, 600)
    places = clip_boxes(owls.corners(boxes, scale).numpy(), (400, 600))
    there = int((areas(places) > 0).sum())  # boxes in the padding are no boxes
    assert [len(one.boxes) for one in found] == [there, there] and there > 0
    for one in found:
        assert (np.diff(one.scores) <= 0).all()
        assert one.boxes.min() >= 0 and (one.boxes <= [600, 400, 600, 400]).all()
    few = owls.build(str(tiny_owl[kind]), "cpu", threshold=1.0)([image], [phrases])[0]
    assert [len(one.boxes) for one in few] == [1, 1]
    none = owls.build(str(tiny_owl[kind]), "cpu", threshold=1.0, at_least_one=False)
    assert len(none([image], [phrases])[0][0].boxes) == 0


def test_what_is_no_owl_is_said(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        owls.build(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="bert"):
        owls.build(str(tmp_path))


def test_maskclip_is_what_its_definition_says():
    vit = open_vit(small_model().image, "this test")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        found = dense_features(vit, images, "maskclip")
        x, grid = vit.tokens(images)
        x = vit.blocks[0].finish(x + vit.blocks[0].attend(vit.blocks[0].qkv(x)))
        last = vit.blocks[1]
        value = last.qkv(x).chunk(3, -1)[2]  # each token attends to itself
        out = vit.project(last.finish(x + last.scale1(last.out(value))))
        assert grid == (4, 4)
        torch.testing.assert_close(found, out[:, 1:].unflatten(1, grid))
        plain, _ = vit.tokens(images)
        for block in vit.blocks:
            plain = block.finish(plain + block.attend(block.qkv(plain)))
        torch.testing.assert_close(
            vit.project(plain[:, 0]), small_model().image(images), atol=1e-5, rtol=1e-5
        )


def test_neighbourhood_falls_with_the_distance():
    near = neighbourhood((3, 4), 2.0)
    assert near.shape == (12, 12) and (near.diagonal() == 1).all()
    assert near[0, 1] == pytest.approx(np.exp(-1 / 8)) and near[0, 1] > near[0, 2] > near[0, 10]


def test_phrases_against_others():
    localizer = Dense(small_model(), "sclip", against=["a wall"])
    heat = localizer([picture("coffee_wide")], [["a cup"]])[0][0].heat
    assert heat.min() == 0 and heat.max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", LOCALIZERS)
def test_every_localizer_keeps_the_contract(name, resnet_model, tiny_owl, tmp_path):
    options = {"levels": [5, 9]} if name == "slicvit" else {}
    if name == "regionclip":
        options = {"shorter": 64}
    spec = model_for(name, resnet_model, tiny_owl, tmp_path)
    localizer = lookup("localizer", LOCALIZERS, name)(spec, "cpu", **options)
    assert localizer.name == name and isinstance(localizer.settings, dict)
    small = np.ascontiguousarray(picture("coffee_wide")[::6, ::6])
    grey = small[..., 0]
    line = np.zeros((1, 40, 3), np.uint8)
    again = localizer([small], [["a cup", "a spoon"]])[0]
    found = localizer([small, grey, line], [["a cup", "a spoon"], [], ["a line"]])
    assert [len(one) for one in found] == [2, 0, 1]
    for image, some in ((small, found[0]), (line, found[2])):
        for one in some:
            assert one.boxes.dtype == one.scores.dtype == np.float32
            assert one.boxes.shape == (len(one.scores), 4) and np.isfinite(one.boxes).all()
            assert (one.boxes[:, 2:] <= (image.shape[1] + 1e-3, image.shape[0] + 1e-3)).all()
            assert (one.boxes[:, :2] >= 0).all() and np.isfinite(one.scores).all()
            if one.heat is not None:
                assert one.heat.ndim == 2 and np.isfinite(one.heat).all()
    for one, other in zip(found[0], again):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    with pytest.raises(UserError, match="empty"):
        localizer([small], [[""]])


def test_the_wrong_tower_is_named(resnet_model):
    with pytest.raises(UserError, match="resnet"):
        Dense(resnet_model, "sclip")
    with pytest.raises(UserError, match="ResNet of CLIP"):
        Resnet(small_model())
