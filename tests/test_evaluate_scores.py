"""Scores as files, and what evaluations ask for."""

import numpy as np
import pytest

from vislang.errors import UserError
from vislang.evaluate.requests import Requests
from vislang.evaluate.scores import Scores, read_scores, table_csv, write_scores
from vislang.metrics.intervals import Interval, wilson


def test_requests_join():
    joined = Requests(images=True, texts=("a", "b")) | Requests(train=True, texts=("b", "c"))
    assert joined == Requests(images=True, train=True, texts=("a", "b", "c"))


def test_scores_are_written_and_read_back(tmp_path):
    scores = Scores(
        "probe", 3, {"accuracy": wilson(2, 3), "one": Interval(0.5, -np.inf, np.inf, 1, "t 95%")},
        tables={"per_class": {"columns": ["class", "recall"], "rows": [["=a|b", None]]}},
        confusion={"classes": ["a"], "counts": np.array([[3]])}, notes=["a note"],
        provenance={"settings": {"x": np.float32(1)}},
    )  # fmt: skip
    path = write_scores(scores, tmp_path / "scores" / "7")
    back = read_scores(path)
    assert back.values == scores.values
    assert back.confusion["counts"] == [[3]]
    assert "Infinity" not in path.read_text()
    assert "NaN" not in path.read_text()
    names = {p.name for p in path.parent.iterdir()}
    assert names == {"probe.json", "probe.csv", "probe.md", "probe.per_class.csv"}
    assert "'=a|b," in (path.parent / "probe.per_class.csv").read_text()
    assert "=a\\|b" in (path.parent / "probe.md").read_text()
    assert "0.6667" in (path.parent / "probe.md").read_text()
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match="not a scores file"):
        read_scores(tmp_path / "x.json")


def test_csv_neutralises_formulas():
    text = table_csv({"columns": ["a", "b"], "rows": [["@x", "-1"], [-1.5, None], ["ok", "+"]]})
    assert text.split("\r\n") == ["a,b", "'@x,'-1", "-1.5,", "ok,'+", ""]
