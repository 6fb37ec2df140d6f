"""vislang sweep: one recipe with several values of some fields; which is best on data.valid."""

from pathlib import Path

from vislang.config import TrainConfig


def sweep(recipe: str, *, out: Path, vary: tuple[str, ...], config: TrainConfig) -> int:
    """Train a recipe with several values of some fields; say which is best on data.valid.

    Every combination is a run folder below OUT/runs; the same command goes on where it stopped,
    tries again what failed, and takes further values. The table is OUT/sweep.md, .csv and .json,
    and OUT/report.html. The best is chosen by run.watch, with its interval: test it on other data.

    Args:
        recipe: a recipe (`vislang list recipes`), a config.yaml, or a run folder.
        out: folder of the runs and their table.
        vary: fields and values, as in optim.lr=1e-4,1e-5,run.seed=0,1,2; several fields make a
            grid, and over seeds the mean is taken.
        config: what the runs share; each field is a flag.
    """
    from vislang.cli.train import judge_of, tell
    from vislang.report import write_report
    from vislang.report.sweep import said, sweep_tables, write_tables
    from vislang.train.data_of import with_data
    from vislang.train.sweep import read_vary
    from vislang.train.sweep import sweep as run_sweep

    made = run_sweep(with_data(config), read_vary(vary), out, judge_of, tell)
    write_tables(made, out)
    for text in sweep_tables(made).values():
        tell(text)
    tell(said(made, out))
    if made["best"]:
        tell(f"Report: {write_report([out], out / 'report.html')}")
    return 0 if made["best"] else 2
