"""vislang evaluate --suite all: everything that a model's sides, a source and a folder allow."""

from pathlib import Path
from typing import Any

from vislang.errors import UserError

# source and its options, training source and its options
Given = tuple[str, dict[str, Any] | None, str, dict[str, Any] | None]


def evaluate_everything(
    model: str,
    given: Given,
    texts: Path | None,
    out: Path,
    options: dict[str, Any] | None,
    how: dict[str, Any],
) -> None:
    """One pass over the images for all evaluations of the source, one over the texts of a folder.

    Args:
        model: a MODEL of the commands.
        given: the sources; of a run without one those that it names.
        texts: folder of text suites.
        out: folder for scores and stores.
        options: evaluation -> arguments of its constructor.
        how: batch_size, workers, device, precision.
    """
    from vislang.cli.evaluate import run_folder, sides_of, sources_of, step_of, table

    sides, run = sides_of(model), run_folder(model)
    if not given[0] and run is not None and "image" in sides:
        given = sources_of(run, given[2], given[3])
    for_images, for_texts = _divided(dict(options or {}))
    scores, left = [], []
    if given[0] and "image" in sides:
        scores, left = _of_source(model, given, sides, out, for_images, how)
    elif given[0]:
        left.append(f"the source {given[0]}: the model has no image side")
    if texts is not None and "text" in sides:
        from vislang.evaluate.text_suites import evaluate_texts

        way = {key: how[key] for key in ("batch_size", "device", "precision")}
        scores += evaluate_texts(
            model, texts, ["all"], out, options=for_texts, step=step_of(model), **way
        )
    elif texts is not None:
        left.append(f"the texts of {texts}: the model has no text side")
    if not scores:
        raise UserError(
            f"Nothing can be evaluated: {model} has the side {' and '.join(sides)}."
            " Give --source SOURCE for an image side, --texts FOLDER for a text side."
            + "".join(f" Left out: {why}." for why in left)
        )
    print(table(scores))
    for why in left:
        print(f"left out: {why}")
    print(f"Scores: {out / 'scores' / f'{step_of(model):09d}'}")
    if run is not None:
        print(f"Next: vislang report {run}")


def _of_source(
    model: str,
    given: Given,
    sides: tuple[str, ...],
    out: Path,
    options: dict[str, Any],
    how: dict[str, Any],
) -> tuple[list[Any], list[str]]:
    """(scores of all evaluations that fit the source, what could not be done)."""
    from vislang.cli.evaluate import fitting, step_of
    from vislang.data.sources import open_source
    from vislang.evaluate import EVALUATIONS, evaluate

    source, source_options, train, train_options = given
    names, options = fitting(open_source(source, **(source_options or {})), sides, options)
    if not names:
        return [], [f"the source {source}: no evaluation can be made of it with this model"]
    left = [
        f"{name}: the source or the model lacks what it needs"
        for name in EVALUATIONS if name not in names
    ]  # fmt: skip
    found = evaluate(
        model, source, names, out, step=step_of(model),
        options={name: options[name] for name in options if name in names},
        source_options=source_options, train_source=train or None, train_options=train_options,
        failures=left, **how,
    )  # fmt: skip
    return found, left


def _divided(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of evaluations of samples, and of text suites; an unknown name is an error."""
    from vislang.evaluate import EVALUATIONS
    from vislang.evaluate.text_suites import TEXT_SUITES
    from vislang.lookup import nearest

    known = [*EVALUATIONS, *TEXT_SUITES]
    for name in options:
        if name not in known:
            raise UserError(
                f"There are options for {name!r}, which is no evaluation.{nearest(name, known)}"
                f" Known: {', '.join(known)}."
            )
    images = {name: each for name, each in options.items() if name in EVALUATIONS}
    return images, {name: each for name, each in options.items() if name in TEXT_SUITES}
