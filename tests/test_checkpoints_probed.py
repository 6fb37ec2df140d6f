"""`vislang probe --checkpoints`: true epochs, choice on a valid split, paired changes, WiSE-FT."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from runs import digits
from vislang.cli import main as cli
from vislang.errors import UserError
from vislang.evaluate.checkpoint_job import steps_per_epoch, usable
from vislang.evaluate.checkpoints import Checkpoints, Moment, hits_of, valid_split
from vislang.evaluate.domains import MemoryRows
from vislang.evaluate.scores import read_scores
from vislang.store import DomainStore
from vislang.train import train
from vislang.train.checkpoint import checkpoints

DOMAINS = ("noop", "dim", "sepia")


def rows_where(right: np.ndarray, official: bool = False) -> MemoryRows:
    """A store of two classes in which exactly these answers [N, 3] are right."""
    n = len(right)
    labels = np.arange(n) % 2
    images = {
        domain: np.eye(2)[np.where(right[:, d], labels, 1 - labels)]
        for d, domain in enumerate(DOMAINS)
    }
    texts = {("standard", ""): np.eye(2), ("own", ""): np.eye(2)}
    if official:
        texts["official", ""] = np.eye(2)[::-1]
    return MemoryRows(images, labels, ("a", "b"), texts, [f"i{i}" for i in range(n)])


def moments_of(*shares: float, n: int = 200, seed: int = 0) -> list[Moment]:
    rng = np.random.default_rng(seed)
    return [
        Moment(10 * k, k / 4, hits_of(rows_where(rng.random((n, 3)) < share)), "" if k else "start")
        for k, share in enumerate(shares)
    ]


def test_hits_are_of_every_kind_of_prompts_and_domain():
    right = np.random.default_rng(1).random((20, 3)) < 0.6
    hits = hits_of(rows_where(right, official=True))
    order = [hits.domains.index(domain) for domain in DOMAINS]
    assert (hits.right["own"][:, order] == right).all()
    assert (hits.right["official"][:, order] == ~right).all()
    assert "official" not in hits_of(rows_where(right)).right


def test_the_valid_split_is_the_same_share_of_each_class_and_of_no_order():
    ids, labels = [f"i{i}" for i in range(90)], np.arange(90) % 3
    chosen = valid_split(ids, labels, 0.4, 0)
    assert np.bincount(labels[chosen]).tolist() == [12, 12, 12]
    turned = valid_split(ids[::-1], labels[::-1], 0.4, 0)
    assert (turned[::-1] == chosen).all()
    assert (valid_split(ids, labels, 0.4, 1) != chosen).any()
    with pytest.raises(UserError, match="none to choose on"):
        valid_split(["a", "b"], np.array([0, 1]), 0.1, 0)


def test_the_best_is_chosen_on_the_valid_split_and_told_of_the_other():
    moments = moments_of(0.5, 0.5, 0.8, 0.3)
    analysis = Checkpoints(alphas=())
    valid = analysis.split(moments[0].hits)
    assert analysis.best(moments) == 2
    scores = analysis.score(moments)
    best = moments[2].hits.right["own"][~valid]
    assert scores.n == (~valid).sum() == 100
    assert scores.values["best_accuracy"].value == pytest.approx(best.mean())
    start = moments[0].hits.right["own"][~valid]
    change = scores.values["best_change"]
    assert change.value == pytest.approx(best.mean() - start.mean())
    assert 0 < change.low < change.value < change.high
    table = scores.tables["own_prompts"]
    assert [row[1] for row in table["rows"]] == [0, 0.25, 0.5, 0.75]  # epochs
    assert table["columns"][-1] == "p (Holm)" and table["rows"][2][-1] < 0.01
    assert table["rows"][1][-1] > 0.05 and table["rows"][0][-1] is None
    by_domain = scores.tables["own_prompts_by_domain"]
    assert by_domain["columns"] == ["domain", "start", "10", "20", "30"]
    assert by_domain["rows"][0][3] == pytest.approx((best - start.astype(int)).mean(axis=0)[0])
    assert len(scores.per_sample["best_accuracy"]["ids"]) == 100
    last = moments[3].hits.right["own"][~valid]
    assert scores.values["last_accuracy"].value == pytest.approx(last.mean())
    assert np.mean(scores.per_sample["last_accuracy"]["values"]) == pytest.approx(last.mean())
    assert "step 20 (epoch 0.5)" in scores.notes[0]


def test_a_checkpoint_that_is_good_on_the_test_split_alone_is_not_chosen():
    n, analysis = 200, Checkpoints(alphas=())
    ids, labels = [f"i{i}" for i in range(n)], np.arange(n) % 2
    valid = valid_split(ids, labels, 0.5, 0)
    lucky = np.repeat(~valid[:, None], 3, axis=1)  # right on the whole test split
    moments = [
        Moment(k, k, hits_of(rows_where(right)))
        for k, right in enumerate((np.ones((n, 3), bool), lucky))
    ]
    assert analysis.best(moments) == 0
    scores = analysis.score(moments)
    assert scores.values["best_change"].value == 0 and "No checkpoint is better" in scores.notes[0]


def test_the_line_has_both_ends_and_its_place_is_chosen_on_the_valid_split():
    moments = moments_of(0.4, 0.6)
    between = moments_of(0.9, seed=5)[0].hits
    scores = Checkpoints(alphas=(0.5,)).score(moments, {0.5: between})
    assert [row[0] for row in scores.tables["line"]["rows"]] == [0.0, 0.5, 1.0]
    ends = [scores.tables["line"]["rows"][i][3] for i in (0, 2)]
    assert ends == [scores.values[f"{name}_accuracy"].value for name in ("start", "best")]
    assert scores.values["wise_accuracy"].value > 0.8 and "alpha 0.5" in scores.notes[-1]
    with pytest.raises(UserError, match="the same images"):
        Checkpoints().score([moments[0], moments_of(0.5, n=10)[0]])


@pytest.mark.parametrize(
    "options", [{"choose": "mine"}, {"valid": 1.0}, {"alphas": (0.0,)}, {"alphas": (1.5,)}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match="checkpoints: "):
        Checkpoints(**options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run") / "a"
    train(digits(run__checkpoint_at="0,1/16,1/8", run__keep=1, optim__lr=1e-2), run)
    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("pictures") / "shapes", np.random.default_rng(0)
    for c, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 90, (24, 24, 3), dtype=np.uint8)
            pixels[..., c] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_all_checkpoints_by_one_command(trained, pictures, tmp_path, capsys, monkeypatch):
    from vislang.embed import domain_pictures

    made: list[int] = []
    make = domain_pictures.DomainPictures.make
    monkeypatch.setattr(
        domain_pictures.DomainPictures, "make", lambda self, i: made.append(i) or make(self, i)
    )
    options = "{checkpoints: {alphas: [0.5], choose: standard}}"
    command = ["probe", str(trained), str(pictures), "--out", str(tmp_path), "--checkpoints", "all",
               "--domains", "noop,dim,sepia", "--prompts", "standard,own", "--device", "cpu",
               "--analysis-options", options]  # fmt: skip
    assert cli.main(command) == 0
    assert "On the line from the start" in capsys.readouterr().out
    assert len(made) == 2 * 24, "pictures are made once for all checkpoints, once for the line"
    found = read_scores(next(tmp_path.glob("scores/*/checkpoints.json")))
    length = json.loads((trained / "checkpoints/000000000/state.json").read_text())
    rows = found.tables["own_prompts"]["rows"]
    steps = [0, 2, 5, 12] if len(rows) == 4 else None
    assert [row[0] for row in rows] == ["start", *map(str, steps[1:])]
    assert [row[1] for row in rows] == [step / length["steps_per_epoch"] for step in steps]
    assert found.provenance["settings"]["steps_per_epoch"] == length["steps_per_epoch"]
    page = (tmp_path / "report.html").read_text()
    for text in ("Mean accuracy over domains", "WiSE-FT", "Change of accuracy by domain", "epoch"):
        assert text in page, text
    # One of them alone has the same embeddings, to the bit.
    assert cli.main([*command, "--checkpoints", "0,12"]) == 0
    stores = [DomainStore(p.parent) for p in tmp_path.glob("stores/*/step-000000012/manifest.json")]
    assert len(stores) == 2
    assert (np.asarray(stores[0].rows("dim")) == np.asarray(stores[1].rows("dim"))).all()
    made.clear()
    assert cli.main(command) == 0 and not made, "the same command again embeds nothing"


def test_models_one_at_a_time_give_what_they_give_together(trained, pictures, tmp_path):
    from vislang.embed import embed_domains
    from vislang.models.pretrained import load_model
    from vislang.models.saved import WEIGHTS
    from vislang.models.swapped import Swapped
    from vislang.models.weights import read_weights

    paths = dict(zip("abc", checkpoints(trained)))
    asked = []

    def weights_of(name):
        asked.append(name)
        return read_weights(paths[name] / WEIGHTS)

    states = {name: functools.partial(weights_of, name) for name in "bc"}
    fixed = {"a": load_model(paths["a"])}
    how = {"batch": 7, "device": "cpu", "precision": "fp32", "kinds": ("standard", "own")}
    swapped = Swapped(load_model(paths["b"]), states, fixed)
    assert list(swapped) == ["a", "b", "c"] and len(swapped) == 3
    one = embed_domains(swapped, str(pictures), DOMAINS, tmp_path / "one", **how)
    assert len(asked) < 20, "not once a batch"
    together = {name: load_model(path) for name, path in paths.items()}
    all_ = embed_domains(together, str(pictures), DOMAINS, tmp_path / "all", **how)
    for name in "abc":
        for domain in DOMAINS:
            assert (np.asarray(one[name].rows(domain)) == all_[name].rows(domain)[:]).all()
        assert (one[name].prompts("own", "dim") == all_[name].prompts("own", "dim")).all()
    assert (one["b"].rows("dim")[:] != one["c"].rows("dim")[:]).any()


def test_the_start_may_be_another_model(trained, pictures, tmp_path, capsys):
    command = ["probe", str(trained), str(pictures), "--out", str(tmp_path), "--device", "cpu",
               "--checkpoints", "2,12", "--start", str(checkpoints(trained)[0]), "--domains",
               "dim", "--prompts", "standard,own",
               "--analysis-options", "{checkpoints: {alphas: [0.5]}}"]  # fmt: skip
    assert cli.main(command) == 0
    found = read_scores(next(tmp_path.glob("scores/*/checkpoints.json")))
    assert [row[0] for row in found.tables["own_prompts"]["rows"]] == ["start", "2", "12"]
    assert (
        found.provenance["start"].endswith("000000000") and len(found.tables["line"]["rows"]) == 3
    )
    assert "There is no checkpoint of step 0" not in capsys.readouterr().out


def test_what_cannot_be_probed_along_a_run(trained, pictures, tmp_path, capsys):
    command = ["probe", str(trained), str(pictures), "--out", str(tmp_path), "--checkpoints"]
    for more, message in (
        (["7"], "no checkpoint of step '7'. It has 0, 2, 5, 12"),
        (["all", "--part", "1/2"], "takes no --analyses"),
        (["all", "--analysis-options", "{transfer: {}}"], "no analysis that was asked for"),
    ):
        assert cli.main([*command, *more]) == 2
        assert message in capsys.readouterr().err, message


def test_true_epochs_are_this_runs_own(trained, tmp_path):
    """Also of a run whose checkpoints do not say it, from what they do or from its log."""
    length = json.loads((trained / "checkpoints/000000000/state.json").read_text())
    length = length["steps_per_epoch"]
    (tmp_path / "log.jsonl").write_bytes((trained / "log.jsonl").read_bytes())
    state = tmp_path / "checkpoints/000000012/state.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"step": 12, "epoch": 0, "position": 12}')
    assert steps_per_epoch(tmp_path, [state.parent]) == pytest.approx(length, rel=1e-3)
    state.write_text('{"step": 12, "epoch": 2, "position": 2}')
    assert steps_per_epoch(tmp_path, [state.parent]) == 5
    told: list[str] = []
    with pytest.raises(UserError, match="can be used"):
        usable(tmp_path, ["all"], told.append)
    assert "left out" in told[0]
