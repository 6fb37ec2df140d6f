"""A judge of a model while it trains: the evaluations as a function of (model, step)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.errors import UserError
from vislang.evaluate.runner import build_evaluations, evaluate

if TYPE_CHECKING:
    from vislang.config import TrainConfig
    from vislang.models.dual import DualEncoder

Judge = Callable[["DualEncoder", int], dict[str, dict[str, Any]]]


def make_judge(
    source: Source | str | Path,
    names: Sequence[str],
    folder: Path | str,
    *,
    train_source: Source | str | Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    source_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Judge:
    """A function that evaluates the model it is given and writes `<folder>/scores/<step>/`.

    It returns {evaluation: {metric: {"value", "low", "high", "n", "interval"}}}, as the log wants
    it. Sources and evaluations are opened and checked now, before any training; embeddings are
    not kept. The model's mode and every random generator are as before when it returns.

    Args:
        source, names, folder, train_source, options, source_options, train_options, batch_size,
        device, precision, workers, limits: as in `evaluate`.
    """
    from vislang.data.sources import as_source

    evaluations = build_evaluations(names, options or {})
    tested = as_source(source, source_options)
    learnt = None if train_source is None else as_source(train_source, train_options)
    for evaluation in evaluations:
        evaluation.requests(tested)

    def judge(model: DualEncoder, step: int) -> dict[str, dict[str, Any]]:
        found = evaluate(
            model, tested, names, folder, train_source=learnt, options=options, step=step,
            batch_size=batch_size, device=device, precision=precision, workers=workers,
            limits=limits, keep_store=False,
        )  # fmt: skip
        return {
            scores.evaluation: {name: value.as_row() for name, value in scores.values.items()}
            for scores in found
        }

    return judge


def judge_from_config(config: TrainConfig, folder: Path | str) -> Judge | None:
    """The judge that a training config asks for, or None where it asks for no evaluation.

    The test samples are `data.valid`; probe, knn and fewshot learn from `data.train`.
    """
    run, data = config.run, config.data
    if not run.evaluations:
        return None
    if not data.valid:
        raise UserError(
            f"run.evaluations asks for {', '.join(run.evaluations)}, but data.valid is empty:"
            " give the source to evaluate on, or ask for no evaluation."
        )
    return make_judge(
        data.valid, run.evaluations, folder, train_source=data.train,
        source_options=data.valid_options, train_options=data.train_options, device=run.device,
        precision=run.precision, workers=data.workers,
        limits=Limits(data.max_pixels, data.max_bytes),
    )  # fmt: skip
