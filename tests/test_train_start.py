"""Runs that start from the weights of another model."""

import pytest
import torch
from safetensors.torch import load_file

from runs import digits
from vislang.errors import UserError
from vislang.models.pretrained import load_model
from vislang.models.saved import save_model
from vislang.train import train


def weights(run, step, stem="model"):
    return load_file(run / "checkpoints" / f"{step:09d}" / f"{stem}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    train(digits(optim__steps=4), folder)
    return folder


def begun(folder, start, **changes):
    """The weights a run begins with: its checkpoint at epoch 0."""
    how = {"run__checkpoint_at": ["0"], "optim__steps": 2, "optim__warmup": 0}
    config = digits(model__start=str(start), **how, **changes)
    train(config, folder)
    return weights(folder, 0), weights(folder, 0, "objective")


def test_a_run_starts_from_a_run_or_a_checkpoint_or_an_export(first, tmp_path):
    last, learned = weights(first, 4), weights(first, 4, "objective")
    model, objective = begun(tmp_path / "a", first)
    assert same(model, last) and same(objective, learned)
    model, objective = begun(tmp_path / "b", first / "checkpoints" / "000000004", run__seed=5)
    assert same(model, last) and same(objective, learned)
    config = digits().model
    save_model(load_model(first), config, tmp_path / "export")
    model, objective = begun(tmp_path / "c", tmp_path / "export")
    assert same(model, last) and not same(objective, learned)
    other = {"objective__options": {"temperature": 0.5}}
    model, objective = begun(tmp_path / "d", first, **other)  # its own temperature, as asked for
    assert same(model, last) and not same(objective, learned)
    assert not same(weights(tmp_path / "a", 2), last)  # and goes on from there


def test_what_is_saved_of_it_does_not_name_the_start(first, tmp_path):
    begun(tmp_path / "a", first)
    model = load_model(tmp_path / "a")
    assert model.config.start == str(first)
    save_model(model, model.config, tmp_path / "export")
    assert str(first) not in (tmp_path / "export" / "vislang.json").read_text()
    assert load_model(tmp_path / "export").config.start == ""


def test_other_architectures_and_itself_are_refused(first, tmp_path):
    wide = {"image_size": 8, "patch": 4, "width": 32, "depth": 1, "heads": 2}
    with pytest.raises(UserError, match="does not fit the model that is to start from"):
        begun(tmp_path / "a", first, model__image__options=wide)
    with pytest.raises(UserError, match="the folder of the run itself"):
        train(digits(model__start=str(first)), first)
    with pytest.raises(UserError):
        begun(tmp_path / "b", tmp_path / "nothing")
