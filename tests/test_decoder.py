"""The text decoder: what it may see, what it predicts, and its place in the model."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from towers_cases import CLIP
from vislang.config import DecoderConfig, ModelConfig, TowerConfig, from_dict, with_changes
from vislang.errors import UserError
from vislang.models.build import build_model
from vislang.models.decoder import Decoder, DecoderOptions
from vislang.models.dual import DualEncoder, count_parameters
from vislang.models.fingerprint import fingerprint_model
from vislang.models.saved import load_export, save_model
from vislang.models.tokenizers import ByteTokenizer

IMAGE = TowerConfig("scratch_vit", {"image_size": 16, "patch": 8, "width": 16, "depth": 2})
TEXT = TowerConfig("scratch_text", {"tokenizer": "bytes", "context": 12, "width": 16, "depth": 1})
SMALL = {"width": 16, "depth": 2, "heads": 2}
CONFIG = ModelConfig(IMAGE, TEXT, 8, DecoderConfig("transformer", SMALL))
TEXTS = ["one", "two!", "", "a caption that is too long"]


def made(config: ModelConfig = CONFIG, seed: int = 0) -> DualEncoder:
    torch.manual_seed(seed)
    return build_model(config)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return {"image": image, "text": ByteTokenizer(12)(TEXTS)}


def test_logits_and_ids_have_one_place_less_than_the_tokens(rows):
    out = made().caption(**rows)
    assert out["caption_logits"].shape == (4, 11, 259)
    assert out["caption_ids"].shape == (4, 11)
    assert out["caption_ids"].dtype == torch.int64
    assert (out["caption_ids"] >= 0).sum(1).tolist() == [4, 5, 1, 11]  # letters and the end
    assert out["caption_ids"][2].tolist() == [258] + [-1] * 10
    torch.testing.assert_close(out["caption_ids"][3], rows["text"][3, 1:])


def test_an_exclamation_mark_of_clip_is_no_padding():
    tokens = torch.tensor([[49406, 320, 0, 49407, 0, 0]])  # id 0 is both
    tokenizer = ByteTokenizer(6)
    assert Decoder(4, tokenizer, DecoderOptions(**SMALL)).targets(tokens).tolist() == [
        [320, 0, 49407, -1, -1]
    ]


@pytest.mark.parametrize("place", [1, 4, 9])
def test_a_token_is_predicted_from_those_before_it_alone(rows, place):
    model = made().eval()
    before = model.caption(**rows)["caption_logits"]
    changed = rows["text"].clone()
    changed[:, place] = 7
    after = model.caption(rows["image"], changed)["caption_logits"]
    torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=0)
    assert not torch.allclose(after[:, place:], before[:, place:])


def test_the_caption_depends_on_its_own_image_alone(rows):
    model = made().eval()
    before = model.caption(**rows)["caption_logits"]
    other = rows["image"].clone()
    other[1] = 255 - other[1]
    after = model.caption(other, rows["text"])["caption_logits"]
    torch.testing.assert_close(after[[0, 2, 3]], before[[0, 2, 3]])
    assert (after[1] - before[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        with_changes(IMAGE, {"options.pool": "mean"}),
        replace(IMAGE, frozen=True),
        TowerConfig("timm", {"name": "test_vit", "image_size": 32}),
        TowerConfig("timm", {"name": "test_resnet", "image_size": 32}),
        TowerConfig("timm", {"name": "test_convnext", "image_size": 32}),
        TowerConfig("open_clip", {"config": {"model_cfg": CLIP}}),
        TowerConfig("open_clip", {"config": {"model_cfg": CLIP}, "project": False}),
    ],
    ids=[
        *("cls", "mean", "frozen", "timm_vit", "timm_resnet", "timm_convnext"),
        *("open_clip", "open_clip_unprojected"),
    ],
)
def test_one_pass_gives_the_numbers_of_two(rows, image):
    model = made(replace(CONFIG, image=image)).eval()
    rows["image"] = F.interpolate(rows["image"].float(), model.image.tower.preprocess.size).byte()
    once = model.embed_and_caption(**rows)
    twice = model(**rows) | model.caption(**rows)
    assert set(once) == set(twice)
    for key, value in twice.items():
        torch.testing.assert_close(once[key], value)


def test_the_image_tower_runs_once(rows):
    model = made()
    calls = []
    model.image.tower.transformer.register_forward_hook(lambda *_: calls.append(1))
    model.embed_and_caption(**rows)
    assert len(calls) == 1


def test_gradients_reach_every_weight_of_the_decoder_and_the_image_tower(rows):
    model = made()
    out = model.caption(**rows)
    F.cross_entropy(
        out["caption_logits"].flatten(0, 1), out["caption_ids"].flatten(), ignore_index=-1
    ).backward()
    parts = [*model.decoder.named_parameters(), *model.image.tower.named_parameters()]
    assert [name for name, p in parts if p.grad is None] == []
    assert all(p.grad is None for p in model.text.parameters())


def test_a_frozen_image_tower_gets_no_graph_but_the_decoder_learns(rows):
    model = made(replace(CONFIG, image=replace(IMAGE, frozen=True)))
    model.embed_and_caption(**rows)["caption_logits"].sum().backward()
    assert all(p.grad is None for p in model.image.tower.parameters())
    assert model.decoder.image_proj.weight.grad is not None


def test_recomputed_blocks_give_the_same_gradient(rows):
    gradients = []
    for on in (False, True):
        model = made()
        model.set_grad_checkpointing(on)
        assert model.decoder.grad_checkpointing is on
        model.caption(**rows)["caption_logits"].square().mean().backward()
        gradients.append([p.grad for p in model.decoder.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("tie", [False, True])
def test_it_learns_to_write_what_it_was_shown(rows, tie):
    config = with_changes(CONFIG, {"decoder.options.tie": tie})
    model = made(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(160):
        out = model.caption(**rows)
        loss = F.cross_entropy(
            out["caption_logits"].flatten(0, 1), out["caption_ids"].flatten(), ignore_index=-1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = model.generate(rows["image"], max_tokens=11)
    wanted = [[byte + 1 for byte in text.encode()[:10]] for text in TEXTS]
    assert said == wanted
    assert model.training  # as it was
    assert [len(row) for row in model.generate(rows["image"], max_tokens=2)] == [2, 2, 0, 2]


def test_generating_agrees_with_the_logits_of_its_own_words(rows):
    model = made().eval()
    said = model.generate(rows["image"], max_tokens=6)
    for image, row in zip(rows["image"], said):
        tokens = torch.tensor([[257, *row, 258]])
        best = model.caption(image[None], tokens)["caption_logits"][0].argmax(-1)
        assert best[: len(row)].tolist() == row


@pytest.mark.parametrize("most", [0, 12])
def test_captions_longer_than_the_context_are_refused(rows, most):
    with pytest.raises(UserError, match="max_tokens must be from 1 to 11"):
        made().generate(rows["image"], most)


def test_a_model_with_a_decoder_is_saved_and_loaded(rows, tmp_path):
    model = made().eval()
    loaded = load_export(save_model(model, CONFIG, tmp_path / "model")).eval()
    assert loaded.config.decoder == CONFIG.decoder
    torch.testing.assert_close(
        loaded.embed_and_caption(**rows), model.embed_and_caption(**rows), rtol=0, atol=0
    )
    assert fingerprint_model(loaded) == fingerprint_model(model)


def test_the_fingerprint_knows_the_decoder_and_models_without_one_keep_theirs():
    with torch.no_grad():
        model = made()
        first = fingerprint_model(model)
        model.decoder.ln_final.bias += 1
        assert fingerprint_model(model) != first
    heads = made(with_changes(CONFIG, {"decoder.options.heads": 4}))
    assert fingerprint_model(heads) != first  # same weights, other numbers
    assert fingerprint_model(made(ModelConfig(IMAGE, TEXT, 8))) != first


def test_the_decoder_counts_as_parameters():
    with_it, without = (count_parameters(made(c)) for c in (CONFIG, ModelConfig(IMAGE, TEXT, 8)))
    own = sum(p.numel() for p in made().decoder.parameters())
    assert with_it["trainable"] - without["trainable"] == own > 0


def test_the_export_to_open_clip_says_what_it_leaves_out(tmp_path):
    from vislang.files import read_json
    from vislang.models.export import export_open_clip

    text = TowerConfig("scratch_text", {"context": 12, "width": 64, "depth": 1})
    config = replace(CONFIG, image=with_changes(IMAGE, {"options.width": 64}), text=text)
    folder = export_open_clip(made(config), tmp_path / "export")
    assert read_json(folder / "open_clip_config.json")["vislang"]["left_out"] == ["decoder"]


def test_models_with_other_decoders_are_not_mixed():
    from vislang.models.wise import interpolate_models

    other = made(with_changes(CONFIG, {"decoder.options.heads": 4}))
    with pytest.raises(UserError, match="text decoders of the two models differ"):
        interpolate_models(made(), other, 0.5)
    halfway = interpolate_models(made(), made(seed=1), 0.5)
    pair = torch.stack([m.decoder.image_proj.weight for m in (made(), made(seed=1))])
    torch.testing.assert_close(halfway.decoder.image_proj.weight, pair.mean(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder.name": "transfromer"}, "Did you mean 'transformer'"),
        ({"decoder.name": ""}, "model.decoder.name is empty"),
        ({"decoder.options": {"deep": 2}}, "no option 'deep'|no field 'deep'"),
        ({"decoder.options": {"heads": 3}}, "heads must divide width"),
        ({"decoder.options": {"depth": 0}}, "depth must be at least 1"),
        ({"text": None}, "one of them is missing"),
        ({"image.name": "torchvision", "image.options": {"name": "resnet18"}}, "gives none"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        made(with_changes(CONFIG, changes))


def test_a_tokenizer_without_frame_is_refused():
    class Bare(ByteTokenizer):
        def __call__(self, texts):
            return super().__call__(texts)[:, 1:]

    with pytest.raises(UserError, match="begins and ends each text"):
        Decoder(4, Bare(8), DecoderOptions(**SMALL))


def test_without_a_decoder_no_caption_is_written(rows):
    model = made(ModelConfig(IMAGE, TEXT, 8))
    for call in (model.caption, model.embed_and_caption):
        with pytest.raises(UserError, match=r"Set model\.decoder\.name"):
            call(**rows)
    with pytest.raises(UserError, match=r"Set model\.decoder\.name"):
        model.generate(rows["image"])


def test_null_stands_for_no_side():
    config = from_dict(ModelConfig, {"text": None, "width": 8})
    assert config.text.name == "none"
    assert with_changes(ModelConfig(), {"image": None}).image.name == "none"


def test_the_ids_alone_are_those_of_the_caption(rows):
    model = made()
    torch.testing.assert_close(
        model.caption_ids(rows["text"]), model.caption(**rows)["caption_ids"]
    )


def test_written_ids_become_text_again():
    from vislang.models.tokenizers import build_tokenizer

    texts = ["a photo of a café !", "the 3 dogs' bones", "naïve 犬", ""]
    for spec in ("bytes", "clip"):
        tokenizer = build_tokenizer(spec, 40)
        rows = tokenizer(texts).tolist()
        again = tokenizer.decode(rows)
        assert tokenizer(again).tolist() == rows
        if spec == "bytes":
            assert again == texts
    assert build_tokenizer("bytes", 9).decode([[257, 196, 98]]) == ["\ufffda"]


def test_a_vocabulary_of_a_file_is_spelt_out(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from vislang.models.tokenizers import build_tokenizer

    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "boat": 5}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    frame = [("[CLS]", 1), ("[SEP]", 2)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=frame)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = build_tokenizer(f"file:{tmp_path / 'tokenizer.json'}", 8)
    assert tokenizer.decode(tokenizer(["a boat", "boat"]).tolist()) == ["a boat", "boat"]
    decoder = Decoder(4, tokenizer, DecoderOptions(**SMALL))
    assert (decoder.start, decoder.end) == (1, 2)
