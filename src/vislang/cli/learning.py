"""The part of `vislang evaluate` in which something is trained: elevater and finetune."""

from pathlib import Path
from typing import Any

from vislang.errors import UserError

SUITES = ("elevater", "finetune")


def evaluate_learning(
    model: str,
    suite: tuple[str, ...],
    options: dict[str, Any] | None,
    sources: tuple[str, dict[str, Any] | None, str, dict[str, Any] | None],
    sets: tuple[tuple[str, ...], Path],
    out: Path,
    how: dict[str, Any],
) -> None:
    """Run elevater or finetune, print the values and what comes next.

    Args:
        model: a MODEL.
        suite: one of SUITES.
        options: of it, under its name.
        sources: source, its options, training source, its options.
        sets: names of ELEVATER's sets, and the folder that holds classification/.
        out: for scores.
        how: batch_size, device, precision, workers.
    """
    from vislang.cli.evaluate import step_of, table

    name = next(name for name in SUITES if name in suite)
    if len(suite) > 1:
        raise UserError(f"{name} trains on samples of its own: evaluate it by itself.")
    own, step = (options or {}).get(name, {}), step_of(model)
    if name == "finetune":
        from vislang.evaluate.finetune import evaluate_finetune

        source, source_options, train, train_options = sources
        if not source:
            raise UserError("finetune needs test samples: --source SOURCE.")
        found = evaluate_finetune(
            model, source, train or None, out, options=own, step=step,
            source_options=source_options, train_options=train_options, **how,
        )  # fmt: skip
        print(table([found]))
    else:
        from vislang.evaluate.elevater.suite import evaluate_elevater

        names, root = sets
        root = Path(sources[0]) if sources[0] else root
        found = evaluate_elevater(
            model, names or ("all",), root, out, options=own, step=step, **how
        )
        print(table([found]))
        for name, why in found.tables.get("missing", {}).get("rows", ()):
            print(f"missing: {name}: {why}")
        task = str(own.get("tasks", ["zeroshot"])[0]).replace(":", "-")
        print(f"Next: vislang submit elevater {out} --task {task} --out elevater.zip")
    print(f"Scores: {out / 'scores' / f'{step:09d}' / f'{name}.json'}")
