"""The named sizes: parameters against the published counts, and what attention may see.

What the low-resource CLIP counts beyond ours, or leaves out, stands in `theirs_image` and
`theirs_text`: its head of two layers, and queries, keys and values without bias in its text tower.
"""

import pytest
import torch
import torch.nn.functional as F

from vislang.config import TowerConfig
from vislang.errors import UserError
from vislang.models.build import build_tower
from vislang.models.dual import count_parameters
from vislang.models.towers.named import IMAGE_SIZES, TEXT_SIZES
from vislang.models.transformer import Attention

WORDS, CONTEXT, OUT, JOINT = 20_000, 32, 768, 512  # of the original
IMAGE_COUNTS = {
    "M/14@112": 3_331_072, "S/16@112": 25_640_448, "S/8@112": 25_420_800,
    "B/16@112": 85_686_528, "B/32@224": 106_342_656, "L/14@224": 303_179_776,
}  # fmt: skip
TEXT_COUNTS = {"S": 27_079_680, "B": 48_086_016, "L": 81_553_920}
PUBLISHED_MILLIONS = {
    "M/14@112": 3.86, "S/16@112": 28.3, "B/16@112": 90.4, "B/32@224": 112.6, "L/14@224": 305,
    "S": 27.1, "B": 48.1, "L": 81.5,
}  # fmt: skip


def tower(side, size, **options):
    """On the meta device: shapes without memory."""
    with torch.device("meta"):
        name = {"image": "scratch_vit", "text": "scratch_text"}[side]
        return build_tower(side, TowerConfig(name, {"size": size, **options}))


def count(module) -> int:
    return count_parameters(module)["total"]


def text_count(size) -> int:
    """With the original's 20,000 tokens in place of our 259 bytes."""
    made = tower("text", size, tokenizer="bytes", context=CONTEXT)
    return count(made) + (WORDS - made.tokenizer.vocab) * made.width


def hidden(size) -> int:
    return 1024 if size[0] == "L" else round(IMAGE_SIZES[size]["width"] * _ratio(size))


def _ratio(size) -> float:
    return IMAGE_SIZES[size]["mlp_ratio"]


def theirs_image(size) -> int:
    """Ours and its head Linear(D, F), Linear(F, 768); its LayerNorm is our ln_post."""
    width, wide = IMAGE_SIZES[size]["width"], hidden(size)
    return count(tower("image", size)) + (width * wide + wide) + (wide * OUT + OUT)


def theirs_text(size) -> int:
    """Ours without the biases of queries, keys and values."""
    told = TEXT_SIZES[size]
    return text_count(size) - 3 * told["width"] * told["depth"]


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_parameters_of_image_towers(size):
    assert count(tower("image", size)) == IMAGE_COUNTS[size]


@pytest.mark.parametrize("size", TEXT_SIZES)
def test_parameters_of_text_towers(size):
    assert text_count(size) == TEXT_COUNTS[size]


@pytest.mark.parametrize("size", PUBLISHED_MILLIONS)
def test_every_difference_to_the_published_counts_is_explained(size):
    theirs = theirs_text(size) if size in TEXT_SIZES else theirs_image(size)
    digits = 2 if size == "M/14@112" else 0 if size == "L/14@224" else 1
    assert round(theirs / 1e6, digits) == PUBLISHED_MILLIONS[size]


@pytest.mark.parametrize(("size", "whole"), [("B/32@224", 161_361_920), ("B/16@112", 139_131_904)])
def test_the_two_published_models_to_the_unit(size, whole):
    """With its projections 768 -> 512 and 512 -> 512."""
    assert theirs_image(size) + theirs_text("B") + OUT * JOINT + JOINT * JOINT == whole


def test_patches_of_the_sizes():
    patches = {"M/14@112": 64, "S/16@112": 49, "S/8@112": 196, "B/16@112": 49, "B/32@224": 49,
               "L/14@224": 256}  # fmt: skip
    for size, n in patches.items():
        assert len(tower("image", size).positional_embedding) == n + 1


def test_the_small_one_of_196_patches_runs():
    torch.manual_seed(0)
    made = build_tower("image", TowerConfig("scratch_vit", {"size": "S/8@112", "depth": 1}))
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        assert made.eval()(images).shape == (2, 512)
        assert made.dense(images).shape == (2, 14, 14, 512)


def test_the_large_text_tower_is_valid_and_says_so_when_it_is_not():
    assert tower("text", "L", tokenizer="bytes").width == 768
    with pytest.raises(UserError, match="heads must divide width"):
        tower("text", "L", tokenizer="bytes", width=512)


def test_what_is_given_beside_the_size_wins_and_is_what_is_saved():
    made = tower("image", "S/16@112", depth=2, dropout=0.1)
    assert (made.settings["depth"], made.settings["width"]) == (2, 512)
    assert made.settings["dropout"] == 0.1
    again = build_tower("image", TowerConfig("scratch_vit", made.settings | {"width": 64}))
    assert (again.width, again.settings["depth"]) == (64, 2)


def test_an_unknown_size_is_named():
    with pytest.raises(UserError, match=r"No size is called 'S/8@11'. Did you mean 'S/8@112'"):
        tower("image", "S/8@11")


def test_clips_residual_network():
    """ModifiedResNet, by open_clip: CLIP's RN50 of 38,316,896 parameters, far from linear."""
    from towers_cases import CASES

    made = build_tower("image", TowerConfig("open_clip", {"name": "RN50"}))
    assert count(made) == 38_316_896
    small = CASES["open_clip resnet"].build().eval()
    images = CASES["open_clip resnet"].inputs(small).float() / 255
    a, b = images[:1], images[1:2]
    with torch.no_grad():
        middle, mean = small((a + b) / 2), (small(a) + small(b)) / 2
    assert (middle - mean).norm() > 0.05 * (small(a) - small(b)).norm()


# What attention may see ------------------------------------------------------------------------


def small_text(**changes):
    torch.manual_seed(0)
    options = {"size": "B", "width": 32, "heads": 4, "depth": 2, "tokenizer": "bytes"}
    made = build_tower("text", TowerConfig("scratch_text", options | {"context": 20} | changes))
    return made.double().eval()


def every_token(made, tokens):
    """The last block's output of each token, [B, L, D]."""
    x = made.token_embedding(tokens) + made.positional_embedding[: tokens.shape[1]]
    return made.transformer(x, None, made.options.causal)


@pytest.mark.parametrize("place", [1, 4, 9])
def test_a_later_token_never_changes_earlier_outputs(place):
    made = small_text()
    tokens = torch.randint(1, 250, (3, 12))
    other = tokens.clone()
    other[:, place:] = torch.randint(1, 250, (3, 12 - place))
    first, second = every_token(made, tokens), every_token(made, other)
    assert torch.equal(first[:, :place], second[:, :place])
    assert (first[:, place:] - second[:, place:]).abs().amax(-1).min() > 0.01
    both = small_text(causal=False)  # the check sees a mask that is missing
    assert not torch.equal(*(every_token(both, t)[:, :place] for t in (tokens, other)))


def test_a_token_sees_itself_and_the_first_is_not_blind():
    made = small_text()
    tokens = torch.randint(1, 250, (1, 6))
    x = (made.token_embedding(tokens) + made.positional_embedding[:6]).detach().requires_grad_()
    out = made.transformer(x, None, True)
    for query in range(6):
        seen = torch.autograd.grad(out[0, query].square().sum(), x, retain_graph=True)[0]
        reached = seen[0].abs().amax(-1) > 1e-9
        assert reached.tolist() == [key <= query for key in range(6)]


def test_the_order_of_words_and_of_patches_counts():
    text = small_text()
    rows = text.prepare(["dog bites man", "man bites dog"])
    with torch.no_grad():
        one, two = text(rows)
        assert 1 - F.cosine_similarity(one, two, dim=0) > 1e-4
        torch.manual_seed(0)
        size = {"size": "S/8@112", "width": 32, "heads": 4, "depth": 2, "image_size": 32}
        image = build_tower("image", TowerConfig("scratch_vit", size)).double().eval()
        picture = torch.rand(1, 3, 32, 32, dtype=torch.float64)
        tiles = picture.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)  # [1, 3, 16, 8, 8]
        mixed = tiles[:, :, torch.randperm(16)].unflatten(2, (4, 4))
        mixed = mixed.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 32)
        assert 1 - F.cosine_similarity(image(picture), image(mixed)).item() > 1e-4
        image.positional_embedding.zero_()  # without positions patches are a set
        torch.testing.assert_close(image(picture), image(mixed))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_a_softmax_over_keys_whose_rows_sum_to_one(causal):
    """Values that are all one come back as one; and the numbers are those of the formula."""
    torch.manual_seed(0)
    width, heads, length = 16, 4, 7
    made = Attention(width, heads).double()
    torch.nn.init.normal_(made.in_proj_weight)
    x = torch.randn(2, length, width, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = F.linear(x, made.in_proj_weight, made.in_proj_bias).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (width / heads) ** 0.5  # [B, H, query, key]
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        weights = scores.softmax(-1)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, heads, length).double())
        expected = made.out_proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(made(x, None, causal), expected)
        made.in_proj_weight[2 * width :] = 0
        made.in_proj_bias[2 * width :] = 1
        made.out_proj.weight.copy_(torch.eye(width))
        made.out_proj.bias.zero_()
        torch.testing.assert_close(made(x, None, causal), torch.ones_like(x))


def test_two_captions_of_equal_length_differ_at_the_start():
    """Of the real size: different everywhere, different only in the first word, and last."""
    torch.manual_seed(0)
    made = build_tower("text", TowerConfig("scratch_text", {"size": "S", "tokenizer": "bytes"}))
    texts = ["a dog runs on grass", "a cat runs on grass", "b dog runs on grass",
             "the man sleeps long"]  # fmt: skip
    with torch.no_grad():
        rows = F.normalize(made.eval()(made.prepare(texts)), dim=-1)
    assert len({len(text) for text in texts}) == 1
    cosine = rows @ rows.T
    assert cosine[0, 1:].max() < 1 - 1e-4
