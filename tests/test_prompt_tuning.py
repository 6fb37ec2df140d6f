"""Learned prompts: where the vectors stand, and that the end of the text is still found."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from adapters_cases import features
from runs import IMAGE, TEXT, digits
from towers_cases import BERTS, CASES, MINILM, Case
from vislang.config import ModelConfig
from vislang.errors import UserError
from vislang.models.adapters.saved import load_adapters, save_adapters
from vislang.models.build import build_model
from vislang.models.layers import find_layers
from vislang.models.pretrained import load_model
from vislang.models.prompt_tuning import insert_prompt
from vislang.train.loop import train

ROBERTA = {**BERTS["config"], "model_type": "roberta", "pad_token_id": 0}
TOWERS = {
    name: CASES[name]
    for name in (
        "scratch_text",
        "scratch_text cls",
        "scratch_text bytes mean",
        "open_clip text",
        "open_clip coca text",
        "huggingface mean",
        "huggingface last",
        "huggingface package",
    )
} | {"roberta": Case("huggingface", "text", BERTS | {"config": ROBERTA})}


def table_of(tower: nn.Module) -> nn.Embedding:
    vocab = tower.tokenizer.vocab
    return next(
        m for m in tower.modules() if isinstance(m, nn.Embedding) and m.num_embeddings >= vocab
    )


@pytest.mark.parametrize("name", TOWERS)
def test_vectors_of_real_words_are_those_words(name):
    """With the embeddings of "a b" as vectors, the text "c" is the text "a b c"."""
    tower = TOWERS[name].build().double()
    long = tower.prepare(["xyz d", "xyz "])
    short = tower.prepare(["d", ""])
    n = int((long[0] != tower.pad).sum() - (short[0] != tower.pad).sum())
    whole = features(tower, long)
    vectors = table_of(tower).weight[long[0, 1 : 1 + n]].detach().clone()
    prompt = insert_prompt(tower, n)
    with torch.no_grad():
        prompt.vectors.copy_(vectors)
    rows = tower.prepare(["d", ""])
    assert rows.shape[1] == long.shape[1] - n, "the total stays the tower's context"
    torch.testing.assert_close(features(tower, rows), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TOWERS)
def test_short_texts_stay_different_and_the_vectors_learn(name):
    """ITRA looked for the end token n places too early: short texts were all alike there."""
    tower = TOWERS[name].build().double()
    prompt = insert_prompt(tower, 4)
    rows = tower.prepare(["a", "b"])
    one, other = features(tower, rows)
    assert (one - other).abs().max() > 1e-6
    tower(rows).square().sum().backward()
    assert prompt.vectors.grad is not None and prompt.vectors.grad.abs().amax(1).min() > 0
    twin = copy.deepcopy(tower)
    with torch.no_grad():
        prompt.vectors.add_(1.0)
    assert not torch.equal(features(tower, rows), features(twin, rows))


def test_a_long_text_is_cut_by_the_vectors():
    tower = CASES["scratch_text"].build()
    insert_prompt(tower, 4)
    rows = tower.prepare(["word " * 50])
    assert rows.shape == (1, 8) and rows[0, -1] == tower.tokenizer.end
    assert torch.equal(pickle.loads(pickle.dumps(tower.tokenizer))(["word " * 50]), rows)
    assert find_layers(tower).number["prompt.vectors"] == find_layers(tower).last


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("scratch_vit", 2, "prompt_tokens needs a text tower"),
        ("scratch_text", 0, "must be at least 1"),
        ("scratch_text", 10, "leaves 2 of 12 tokens for the text, which needs 3"),
    ],
)
def test_prompts_that_cannot_be_are_refused(name, n, message):
    with pytest.raises(UserError, match=message):
        insert_prompt(CASES[name].build(), n)


def test_a_run_trains_the_prompt_alone(tmp_path):
    config = digits(model__text__prompt_tokens=4, optim__steps=2, run__checkpoint_every="2 steps")
    train(config, tmp_path)
    model = load_model(tmp_path)
    torch.manual_seed(0)
    start = build_model(config.model)
    tower = dict(model.side("text").tower.named_parameters())
    assert {n for n, p in tower.items() if p.requires_grad} == {"prompt.vectors"}
    assert tower["prompt.vectors"].shape == (4, 16)
    loaded = load_adapters(
        build_model(replace(config.model, text=TEXT)),
        save_adapters(model, tmp_path / "p.safetensors"),
        any_base=True,
    )
    assert torch.equal(loaded.side("text").tower.prompt.vectors, tower["prompt.vectors"])
    assert model.side("text").tower.tokenizer.context == 28
    assert start.config == model.config


def test_prompt_and_adapter_together():
    part = replace(TEXT, prompt_tokens=3, adapter="prefix_tuning", adapter_options={"length": 2})
    model = build_model(ModelConfig(IMAGE, part, width=16))
    model(text=model.side("text").tower.prepare(["a"]))["text"].sum().backward()
    trained = [n for n, p in model.side("text").tower.named_parameters() if p.grad is not None]
    assert {n.split(".")[0] for n in trained} == {"prompt", "adapters"}


PROMPTBERT = Case("huggingface", "text", {"context": 16, "pooler": "promptbert"}, MINILM)


def test_promptbert_reads_the_mask_and_takes_the_template_off():
    """Against the model itself, called once for the text and once for the template."""
    tower = PROMPTBERT.build().eval()
    template = 'The sentence of "{}" means [MASK].'
    encode = tower.tokenizer.inner.tokenizer.encode
    text, empty = encode(template.format("two dogs")).ids, encode(template.format("")).ids
    position = torch.arange(len(empty)) + torch.tensor([0] * 5 + [2] * (len(empty) - 5))
    with torch.no_grad():
        there = tower.model(input_ids=torch.tensor([text])).last_hidden_state[0]
        alone = tower.model(
            input_ids=torch.tensor([empty]), position_ids=position[None]
        ).last_hidden_state[0]
    wanted = there[text.index(103)] - alone[empty.index(103)]
    rows = tower.prepare(["two dogs", "", "a [MASK] in a text", "many words " * 20])
    found = features(tower, rows)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)
    assert found[1].abs().max() < 1e-4, "the template alone says nothing"
    assert rows.shape == (4, 16) and (rows == 103).any(1).all(), "cut texts keep the template"
    alone_ = torch.cat([features(tower, row[None]) for row in rows])
    torch.testing.assert_close(alone_, found, rtol=1e-4, atol=1e-5)
    assert torch.equal(pickle.loads(pickle.dumps(tower.tokenizer))(["two dogs"]), rows[:1])
    tower.train()
    tower(rows).sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "bytes"}, "promptbert needs the model's own tokenizer"),
        ({"template": "no gap [MASK]"}, r"template must hold \{\} once and \[MASK\] once"),
        ({"context": 10}, "The template takes 10 of 10 tokens"),
    ],
)
def test_promptbert_refuses_what_it_cannot_read(changes, message):
    with pytest.raises(UserError, match=message):
        PROMPTBERT.build(**changes)


def test_promptbert_and_learned_prompts_do_not_mix():
    with pytest.raises(UserError, match="cannot shorten the texts of TemplateTokenizer"):
        insert_prompt(PROMPTBERT.build(), 2)
