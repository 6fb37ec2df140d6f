"""Domain-pure batches: the original's order, purity, equal rounds, resuming, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from layouts import CAPTIONS, add_tar, picture
from runs import digits
from vislang.config import with_changes
from vislang.data.batches import Batches
from vislang.data.rounds import batch_at, pure_visits, whole_batches
from vislang.data.sources import open_source
from vislang.errors import UserError

LISTS = json.loads((Path(__file__).parent / "golden" / "curate.json").read_text())


def test_golden_multiplexer():
    golden = LISTS["multiplexer"]
    lengths = golden["loader_lengths"]
    found = [batch_at(golden["seed"], t, lengths) for t in range(len(golden["sequence"]))]
    assert [[f"d{d}b{b}", d] for d, _, b in found] == golden["sequence"]


@pytest.mark.parametrize(("sizes", "batch"), [((7, 12, 30), 3), ((4, 4), 2), ((5,), 2)])
def test_batches_are_pure_and_domains_come_equally_often(sizes, batch):
    lengths, total = whole_batches(sizes, "abc", batch), sum(sizes)
    bounds = np.cumsum([0, *sizes])
    seen = []
    for epoch in range(6):
        rows = pure_visits(3, epoch, sizes, batch)
        assert len(np.unique(rows)) == len(rows) == batch * sum(lengths)
        domains = np.searchsorted(bounds, rows % total, side="right").reshape(-1, batch) - 1
        assert (domains == domains[:, :1]).all()
        seen += domains[:, 0].tolist()
    for at in range(0, len(seen) - len(sizes), len(sizes)):
        assert sorted(seen[at : at + len(sizes)]) == list(range(len(sizes)))


def test_a_pass_of_a_domain_visits_each_sample_at_most_once():
    sizes, batch = (6, 20), 2
    small = [i for epoch in range(2) for i in pure_visits(0, epoch, sizes, batch) % 26 if i < 6]
    for at in range(0, len(small) - 6, 6):
        assert sorted(small[at : at + 6]) == list(range(6))
    assert small[:6] != small[6:12]


@pytest.fixture
def fetched(tmp_path) -> Path:
    """What `vislang curate fetch` leaves: a folder of tars for each domain."""
    for number, domain in enumerate(("000-blur", "001-dim")):
        files = {}
        for i in range(4 + 3 * number):
            files |= {f"{i:09d}.jpg": picture(i), f"{i:09d}.txt": f"{domain} {CAPTIONS[i % 6]}"}
        (tmp_path / domain).mkdir()
        add_tar(tmp_path / domain / "00000.tar", files)
    return tmp_path


def test_a_loader_gives_pure_batches_from_any_step(fetched):
    source = open_source(f"pure:{fetched}")
    from vislang.preprocess import Preprocess

    batches = Batches(source, 2, needs=("image",), image=Preprocess(size=(8, 8)), augment="clip")
    assert len(batches) == 5
    whole = [batch["id"] for epoch in (0, 1) for batch in batches.start(epoch)]
    for ids in whole:
        assert len({name.partition("/")[0] for name in ids}) == 1 and len(ids) == 2
    assert [batch["id"] for batch in batches.start(0, 3, epochs=2)] == whole[3:]
    with pytest.raises(UserError, match=r"domain '000-blur' has 4 samples.*at most 4"):
        Batches(source, 5, needs=("image",), image=Preprocess(size=(8, 8)), augment="clip")
    with pytest.raises(UserError, match=r"leave data\.episode at 0"):
        Batches(source, 2, needs=("image",), image=Preprocess(size=(8, 8)), episode=4)
    plain = Batches(source, 2, needs=("image",), image=Preprocess(size=(8, 8)), shuffle=False,
                    drop_last=False)  # fmt: skip
    assert sum(len(batch["id"]) for batch in plain) == 11  # an evaluation reads all


def test_training_on_pure_batches(fetched, tmp_path):
    from vislang.train import train

    changes = {"data.train": f"pure:{fetched}", "data.train_options": {}, "data.batch_size": 2,
               "data.augment": "none", "optim.epochs": 1, "optim.steps": 0,
               "data.workers": 0}  # fmt: skip
    config = with_changes(digits(), changes)
    last = train(config, tmp_path / "run")
    assert int(last.name) == 5  # two and three whole batches


def test_folders_of_domains_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="has no folders with"):
        open_source(f"pure:{tmp_path}")
    with pytest.raises(UserError, match="does not exist"):
        open_source(f"pure:{tmp_path}/none")
