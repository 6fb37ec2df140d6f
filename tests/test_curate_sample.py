"""Which images are taken: the best, any, or by their captions; duplicates; bad input."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate_parts import add_part, embeddings
from vislang.cli import main as cli
from vislang.curate.classifier import DomainClassifier
from vislang.curate.collections import open_collection
from vislang.curate.sample import (
    Duplicates,
    distinct_rows,
    read_sample,
    sample_text,
    sample_top,
    sample_uniform,
)
from vislang.curate.score import Scoring, score_collection
from vislang.curate.targets import TARGETS, match_targets, spaced_words
from vislang.data.domains import DOMAINS
from vislang.errors import UserError


@pytest.fixture
def scored(tmp_path) -> Path:
    rows = embeddings(200)
    rows[50:60] = rows[49]
    urls = [f"http://a.example/{i % 150}.jpg" for i in range(200)]
    add_part(tmp_path / "c", "en", 0, rows, {"url": urls})
    add_part(tmp_path / "c", "multi", 2, embeddings(50, seed=3))
    made = DomainClassifier("ab", 16).eval()
    score_collection(open_collection(tmp_path / "c"), made, tmp_path / "s", Scoring(k=250))
    return tmp_path


def test_the_best_of_each_domain_with_rank_score_and_no_duplicates(scored):
    done = sample_top(scored / "s", scored / "o", k=30, duplicates=Duplicates(cosine=0.999))
    table, about = read_sample(scored / "o")
    assert about == done and about["domains"]["a"]["kept"] == 30
    for domain in "ab":
        mine = [row for row in table.to_pylist() if row["domain"] == domain]
        assert len({row["url"] for row in mine}) == 30
        ranks, scores = [r["rank"] for r in mine], [r["score"] for r in mine]
        assert ranks == sorted(ranks) and scores == sorted(scores, reverse=True)
        assert all(row["id"] == f"{row['part']}-{row['row']:09d}.jpg" for row in mine)
        rows = np.load(scored / "c/en/img_emb/img_emb_0000.npy").astype(np.float32)
        found = rows[[row["row"] for row in mine if row["part"] == "en-0000"]]
        unit = found / np.linalg.norm(found, axis=1, keepdims=True)
        assert (np.triu(unit @ unit.T, 1) < 0.999).all()
    everything = sample_top(scored / "s", scored / "p", duplicates=Duplicates(False, False, 0))
    assert everything["images"] == 500
    both = sample_top(scored / "s", scored / "q", duplicates=Duplicates(cosine=0, across=True))
    assert both["domains"]["a"] == {"kept": 200, "same url": 50}
    assert both["domains"]["b"]["kept"] == 0


def test_distinct_rows_keeps_the_first_of_each_kind():
    rows = np.eye(4, dtype=np.float32)[[0, 1, 0, 2, 1, 3]]
    stay, looked = distinct_rows(rows, 0.9, 10)
    assert stay.tolist() == [True, True, False, True, False, True] and looked == 6
    stay, looked = distinct_rows(rows, 0.9, 3)
    assert stay.sum() == 3 and looked <= 5


def test_uniform_is_the_original_draw(scored):
    import random

    found = open_collection(scored / "c")
    done = sample_uniform(found, scored / "u", 40)
    table, _ = read_sample(scored / "u")
    names = [part.row_id(row) for part in found.parts for row in range(part.shape[0])]
    assert table["id"].to_pylist() == random.Random(0).sample(names, 40)
    assert done["domains"] == {"uniform": {"kept": 40}}
    sample_uniform(found, scored / "m", 5, groups=["multi"])
    assert set(read_sample(scored / "m")[0]["part"].to_pylist()) == {"multi-0002"}
    with pytest.raises(UserError, match=r"of the groups de\. There are: en, multi"):
        sample_uniform(found, scored / "x", 5, groups=["de"])
    with pytest.raises(UserError, match="999 images cannot be drawn of 250"):
        sample_uniform(found, scored / "x", 999)


def test_captions_that_name_a_domain(tmp_path):
    captions = ["A SEPIA-toned photo", "sepia", "sepias", "upside\u2003down", None, "fish-eye"] * 4
    add_part(tmp_path / "c", "en", 0, embeddings(24), {"caption": captions})
    found = open_collection(tmp_path / "c")
    done = sample_text(found, tmp_path / "o", 3)
    assert done["domains"]["sepia"] == {"kept": 3, "matches": 8}
    assert done["domains"]["upside_down"] == {"kept": 3, "matches": 4}
    assert done["domains"]["fisheye"]["matches"] == 0
    assert set(TARGETS) == set(DOMAINS)
    table, _ = read_sample(tmp_path / "o")
    again = sample_text(found, tmp_path / "again", 3)
    assert again == done and read_sample(tmp_path / "again")[0].equals(table)


def test_golden_text_matching():
    root = os.environ.get("VISLANG_TEST_DATA")
    path = Path(root or "").parent / "golden/domains/text_matching.json"
    if not root or not path.exists():
        pytest.skip("needs the golden file text_matching.json beside VISLANG_TEST_DATA")
    golden = json.loads(path.read_text())
    captions = pa.array(golden["captions"])
    words = [text.split() for text in spaced_words(captions).to_pylist()]
    assert words == golden["words"]
    names, found = match_targets(captions)
    order = [names.index(domain) for domain in golden["domains"]]
    assert found[:, order].astype(int).tolist() == golden["match"]
    for domain, targets in golden["targets"].items():
        joined = [t if isinstance(t, str) else " ".join(t) for t in targets]
        assert sorted(TARGETS[domain]) == sorted(joined)


def test_words_are_split_as_python_splits_them():
    texts = ["A\u00a0b\x1cc\u2028d", "\u0130x D\u0130M", "e1f_g", "", "\u200bdim"]
    marks = dict.fromkeys(map(ord, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~0123456789"), " ")
    want = [text.lower().translate(marks).split() for text in texts]
    assert [t.split() for t in spaced_words(pa.array(texts)).to_pylist()] == want


def test_bad_input_of_sampling(scored, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no sample"):
        read_sample(tmp_path / "none")
    add_part(scored / "c", "aa", 0, embeddings(5))
    with pytest.raises(UserError, match="has other parts than when it was scored"):
        sample_top(scored / "s", tmp_path / "o")
    argv = ["curate", "sample", str(scored / "c"), "--out", str(tmp_path / "o")]
    assert cli.main([*argv, "--mode", "uniform", "--k", "7"]) == 0
    assert "Sample of 7 images" in capsys.readouterr().out
    assert cli.main([*argv, "--mode", "text"]) == 2
    assert "needs --k" in capsys.readouterr().err
    assert cli.main([*argv, "--mode", "textt", "--k", "1"]) == 2
    assert "Did you mean 'text'" in capsys.readouterr().err
    pq.write_table(
        pa.table({"x": [1] * 50}), scored / "c/multi/multi-metadata/metadata_0002.parquet"
    )
    with pytest.raises(UserError, match="has no captions"):
        sample_text(open_collection(scored / "c"), tmp_path / "t", 3)
