"""The one runner: every evaluation from a single pass over the images of each source."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.errors import UserError
from vislang.evaluate import EVALUATIONS
from vislang.evaluate.embedded import embed_requests
from vislang.evaluate.provenance import Origin
from vislang.evaluate.requests import Evaluation, Requests
from vislang.evaluate.scores import Scores, write_scores
from vislang.lookup import build_one, build_several

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder


def evaluate(
    model: DualEncoder | str | Path,
    source: Source | str | Path,
    names: Sequence[str],
    folder: Path | str,
    *,
    train_source: Source | str | Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    source_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
    step: int | str = 0,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
    keep_store: bool = True,
    failures: list[str] | None = None,
) -> list[Scores]:
    """Run any set of evaluations on one model and one source.

    What they all need is embedded once; stores in `<folder>/stores` are used again when nothing
    that they depend on has changed. Each evaluation writes
    `<folder>/scores/<step>/<evaluation>.json` with tables as CSV and Markdown beside it. An
    evaluation that fails does not stop the others; the first failure is raised at the end.

    Args:
        model: a dual encoder, or a MODEL of the commands.
        source: test samples: a source, or a SOURCE of the commands.
        names: keys of EVALUATIONS.
        folder: usually the run folder.
        train_source: samples that probe, knn and fewshot learn from. Without one, `source` is
            divided (stratified and seeded), which the notes and the provenance say.
        options: evaluation -> arguments of its constructor.
        source_options, train_options: arguments of the layouts, where the sources are text.
        step: of the model; names the folder of the scores.
        batch_size, device, precision, workers, limits: how images are embedded.
        keep_store: write the embeddings to disk; False keeps them in memory only.
        failures: where a list is given, evaluations that fail are told in it and not raised,
            unless all of them fail.

    Raises:
        UserError: an unknown evaluation or option, or a source or model that lacks what one needs.
    """
    from vislang.data.sources import as_source
    from vislang.models.pretrained import as_model

    evaluations = build_evaluations(names, options or {})
    encoder, tested = as_model(model), as_source(source, source_options)
    asked = [_requests(evaluation, tested, encoder) for evaluation in evaluations]
    everything = functools.reduce(operator.or_, asked)
    training = None
    if everything.train and train_source is not None:
        training = as_source(train_source, train_options)
        _same_classes(tested, training)
    how: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "precision": precision, "workers": workers,
        "limits": limits,
    }  # fmt: skip
    stores = Path(folder) / "stores" if keep_store else None
    embeddings, settings = embed_requests(encoder, tested, training, everything, stores, how)
    origin = Origin(
        model, source, dict(source_options or {}), train_source, step, settings, tested, training
    )
    found: list[Scores] = []
    failed: list[str] = []
    for evaluation, request in zip(evaluations, asked):
        try:
            scores = evaluation.score(embeddings)
        except UserError as error:
            failed.append(f"{evaluation.name}: {error}")
            continue
        made = origin.provenance(evaluation.settings(), trained=request.train)
        found.append(replace(scores, provenance=made))
        write_scores(found[-1], Path(folder) / "scores" / _step_name(step))
    if failures is not None and found:
        failures += failed
    elif failed:
        kept = f" The other {len(found)} are written." if found else ""
        raise UserError(" ".join(failed) + kept)
    return found


def build_evaluations(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> list[Evaluation]:
    """The evaluations of these names; options for one that is not asked for are an error."""
    return build_several("evaluation", EVALUATIONS, names, options)


def build_evaluation(name: str, options: Mapping[str, Any] | None = None) -> Evaluation:
    """One evaluation; an unknown option is an error that names the known ones."""
    return build_one("evaluation", EVALUATIONS, name, options)


def _requests(evaluation: Evaluation, source: Source, model: DualEncoder) -> Requests:
    """What an evaluation asks for, when the model can give it."""
    asked = evaluation.requests(source)
    if model.text is None and asked.text_optional:
        asked = replace(asked, captions=False, texts=())
    try:
        if asked.images or asked.features:
            model.side("image")
        if asked.captions or asked.texts:
            model.side("text")
    except UserError as error:
        raise UserError(f"The evaluation {evaluation.name!r}: {error}") from error
    return asked


def _same_classes(source: Source, train: Source) -> None:
    if source.classes and train.classes and source.classes != train.classes:
        both = zip(source.classes, train.classes)
        first = next(((a, b) for a, b in both if a != b), None)
        what = (
            f"the first that differs is {first[0]!r} against {first[1]!r}"
            if first
            else f"there are {len(source.classes)} against {len(train.classes)}"
        )
        raise UserError(
            f"The sources {source.name!r} and {train.name!r} do not have the same classes in the"
            f" same order: {what}. Give both the same list of classes."
        )


def _step_name(step: int | str) -> str:
    return f"{step:09d}" if isinstance(step, int) else str(step)
