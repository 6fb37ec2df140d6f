"""The evaluation `finetune`: an image side fine-tuned on one labelled source, asked about another.

from vislang.evaluate.finetune import evaluate_finetune
evaluate_finetune("runs/a", "test/", "train/", "runs/a", options={"part": "adapters"})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import Limits
from vislang.data.prompts import fill, read_prompts
from vislang.data.sample import BadSample, Source
from vislang.data.sources import as_source
from vislang.embed.embedder import Embedder
from vislang.embed.texts import embed_texts
from vislang.errors import UserError
from vislang.evaluate.classified import score_classes
from vislang.evaluate.elevater.subsets import few_shot
from vislang.evaluate.pictures import Pictures
from vislang.evaluate.provenance import Origin
from vislang.evaluate.requests import need
from vislang.evaluate.scores import Scores, write_scores
from vislang.evaluate.search import stratified_split
from vislang.evaluate.tune import TuneOptions, fine_tune
from vislang.evaluate.zeroshot import classifier
from vislang.lookup import check_options

if TYPE_CHECKING:
    from jaxtyping import Float

    from vislang.models.dual import DualEncoder

HELD_OUT = 0.2  # of the training samples, stratified


@dataclass(frozen=True)
class FinetuneOptions(TuneOptions):
    """Options of `finetune`: those of TuneOptions, and

    Args:
        prompts: templates of the class prompts that the head begins as (see `read_prompts`).
        shots: training samples of each class; 0 takes all.
    """

    prompts: str | Sequence[str] = "auto"
    shots: int = 0


def evaluate_finetune(
    model: DualEncoder | str | Path,
    source: Source | str | Path,
    train_source: Source | str | Path | None,
    folder: Path | str,
    *,
    options: Mapping[str, Any] | FinetuneOptions | None = None,
    source_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
    step: int | str = 0,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Scores:
    """Fine-tune on one source, score on another; the model itself stays as it was.

    Args:
        model: with an image side, or a MODEL of the commands.
        source: test samples with labels.
        train_source: training samples; None takes four fifths of the test source, stratified, and
            tests on the rest.
        folder: scores go to `<folder>/scores/<step>/finetune.json`.
        options: see FinetuneOptions.
        source_options, train_options: arguments of the layouts.
        step, batch_size, device, precision, workers, limits: as in `evaluate`.

    Raises:
        UserError: sources without labels or of other classes, a part that the tower lacks.
    """
    asked = options if isinstance(options, FinetuneOptions) else read_options(options)
    given, name = model, source
    from vislang.models.pretrained import as_model

    model = as_model(model)
    tested = _open(source, source_options)
    training = None if train_source is None else _open(train_source, train_options)
    way = {"batch_size": batch_size, "device": device, "precision": precision, "limits": limits}
    embedder = Embedder(model, tested, ("image",), **way)  # checks the side, knows the settings
    scores = _tuned_scores(model, tested, training, asked, way, workers)
    origin = Origin(given, name, dict(source_options or {}), train_source, step, embedder.settings,
                    tested, training)  # fmt: skip
    scores = replace(scores, provenance=origin.provenance(asdict(asked), trained=True))
    place = f"{step:09d}" if isinstance(step, int) else str(step)
    write_scores(scores, Path(folder) / "scores" / place)
    return scores


def _tuned_scores(
    model: DualEncoder,
    tested: Source,
    training: Source | None,
    asked: FinetuneOptions,
    way: Mapping[str, Any],
    workers: int,
) -> Scores:
    test, train, how = _parts(tested, training)
    if asked.shots:
        rows = few_shot([(int(y),) for y in train[2]], len(tested.classes), asked.shots, asked.seed)
        train = train[0], train[1][rows], train[2][rows]
    side: Any = model.side("image")
    pictures, asking = (
        Pictures(part[0], part[1].tolist(), side.tower.preprocess, workers=workers,
                 limits=way["limits"]) for part in (train, test)
    )  # fmt: skip
    target, label = train[2][pictures.kept], test[2][asking.kept]
    found = fine_tune(
        side, pictures, target, asking, stratified_split(target, HELD_OUT, asked.seed), _accuracy,
        _prompts(model, tested, asked, way), len(tested.classes), asked, way["device"],
        way["precision"],
    )  # fmt: skip
    notes = [f"Trained on: {how}.", f"{found.trainable:,} numbers were trained ({asked.part})."]
    if found.tried:
        notes.append("Rate and share were chosen on a fifth of the training samples.")
    notes += [f"{p.rejected} {which} samples could not be used." for p, which in
              ((pictures, "training"), (asking, "test")) if p.rejected]  # fmt: skip
    tables = {
        "chosen": {"columns": ["rate", "share of the tuned weights", "trainable parameters",
                               "training samples"],
                   "rows": [[found.rate, found.alpha, found.trainable, len(target)]]},
        "held_out": {"columns": ["rate", "share", "accuracy on held-out samples"],
                     "rows": [list(one) for one in found.tried]},
    }  # fmt: skip
    ids = [test[0][int(test[1][k])].id for k in asking.kept]
    return score_classes("finetune", found.logits, label, list(tested.classes), ids, tables=tables,
                         notes=notes)  # fmt: skip


def read_options(given: Mapping[str, Any] | None) -> FinetuneOptions:
    """Options from a mapping; an unknown one is an error that names the known ones."""
    known = list(FinetuneOptions.__dataclass_fields__)
    check_options("The evaluation 'finetune'", given or {}, known)
    return FinetuneOptions(**(given or {}))


Part = tuple[Source, np.ndarray, np.ndarray]  # source, positions, labels


def _open(source: Source | str | Path, options: Mapping[str, Any] | None) -> Source:
    found = as_source(source, options)
    need(found, "label", "finetune")
    if not found.classes:
        raise UserError(f"finetune: the source {found.name!r} names no classes.")
    return found


def _parts(tested: Source, training: Source | None) -> tuple[Part, Part, str]:
    test = _labelled(tested)
    if training is None:
        learnt, asked = stratified_split(test[2], HELD_OUT, 0)
        if not len(asked):
            raise UserError("finetune: every class has one sample: give a training source.")
        parts = [(tested, test[1][rows], test[2][rows]) for rows in (asked, learnt)]
        return parts[0], parts[1], "four fifths of the source itself, stratified"
    if training.classes != tested.classes:
        raise UserError(
            f"finetune: {training.name!r} and {tested.name!r} do not have the same classes in the"
            " same order. Give both the same list of classes."
        )
    return test, _labelled(training), training.name


def _labelled(source: Source) -> Part:
    """The samples that have a label; their pictures are not looked at."""
    positions, labels = [], []
    for i in range(len(source)):
        try:
            own = source[i].labels
        except BadSample:
            continue
        if own:
            positions.append(i)
            labels.append(own[0])
    if not positions:
        raise UserError(f"finetune: no sample of {source.name!r} has a label.")
    return source, np.array(positions, np.int64), np.array(labels, np.int64)


def _prompts(
    model: DualEncoder, source: Source, asked: FinetuneOptions, way: Mapping[str, Any]
) -> Float[np.ndarray, "C D"] | None:
    """The zero-shot classifier, or None without a text side."""
    if model.text is None:
        return None
    templates = read_prompts(asked.prompts, getattr(source, "templates", ()))
    filled = [fill(template, name) for name in source.classes for template in templates]
    how = {key: way[key] for key in ("batch_size", "device", "precision")}
    rows = embed_texts(model, filled, **how)
    return classifier(rows.reshape(len(source.classes), len(templates), -1).astype(np.float64))


def _accuracy(rows: np.ndarray, target: np.ndarray) -> float:
    return float((rows.argmax(1) == target).mean())
