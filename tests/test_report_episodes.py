"""The page of a run that clustered its episodes: log, groups, map; torn files give way."""

import pytest

from runs import digits
from vislang.report import write_report
from vislang.train import train


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protoclip")
    options = {"clusters": 6, "projector": [16], "projection": 8, "warmup": 1}
    train(
        digits(
            objective__name="protoclip", objective__options=options, data__episode=128,
            optim__steps=12,
        ),
        folder,
    )  # fmt: skip
    return folder


def test_episodes_are_told_with_groups_and_a_map(clustered):
    page = write_report([clustered], clustered / "report.html").read_text()
    body = page[page.index('id="episodes"') :]
    assert "3 episodes, 2 of them clustered" in body
    assert "K-means error, last iteration" in body and "agreement of image and text" in body
    assert "image cluster" in body and "text cluster" in body
    assert "Groups of episode 2" in body and "coloured by the cluster of their captions" in body
    assert body.count("<img") > 20


def test_a_torn_episode_gives_way_to_the_one_before(clustered):
    whole = (clustered / "episodes" / "00002.json").read_text()
    (clustered / "episodes" / "00002.json").write_text(whole[:100])
    page = write_report([clustered], clustered / "torn.html").read_text()
    assert "Groups of episode 1" in page
    (clustered / "episodes" / "00001.npz").write_bytes(b"torn")
    assert "could not be read" in write_report([clustered], clustered / "torn.html").read_text()
    (clustered / "episodes" / "00002.json").write_text(whole)


def test_other_runs_have_no_such_section(tmp_path):
    train(digits(optim__steps=2), tmp_path)
    assert 'id="episodes"' not in write_report([tmp_path], tmp_path / "r.html").read_text()
