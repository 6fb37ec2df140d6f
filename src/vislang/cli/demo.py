"""vislang demo: the main job on real digits, without any download."""

from pathlib import Path

from vislang.config import TrainConfig


def demo(*, out: Path = Path("runs/demo"), config: TrainConfig) -> int:
    """Train a small CLIP on real handwritten digits, evaluate it, write the report: about a minute.

    Args:
        out: run folder to fill.
        config: the recipe demo; each field is a flag.
    """
    from vislang.cli.evaluate import table
    from vislang.cli.train import tell, train_and_tell
    from vislang.evaluate import EVALUATIONS
    from vislang.evaluate import evaluate as run_evaluations
    from vislang.models.saved import newest_checkpoint
    from vislang.report import write_report

    if code := train_and_tell(config, out):
        return code
    tell("Evaluating on the held-out digits ...")
    data = config.data
    scores = run_evaluations(
        str(out), data.valid, tuple(EVALUATIONS), out, source_options=data.valid_options,
        train_source=data.train, train_options=data.train_options,
        step=int(newest_checkpoint(out).name), device=config.run.device,
        precision=config.run.precision, workers=data.workers,
    )  # fmt: skip
    tell(table(scores))
    page = write_report([out], out / "report.html")
    tell(f"Report: {page.resolve()}")
    return 0
