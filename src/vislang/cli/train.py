"""vislang train: a recipe with any field changed, trained, judged while it trains, resumed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vislang.config import TrainConfig
from vislang.errors import UserError


def train(recipe: str, *, out: Path | None = None, config: TrainConfig) -> int:
    """Train a dual encoder; the same command again goes on where it stopped.

    Args:
        recipe: a recipe (`vislang list recipes`), a config.yaml, or a run folder to go on with.
        out: run folder to fill; may be left out when RECIPE is a run folder.
        config: the resolved configuration; each field is a flag.
    """
    if out is None:
        if not Path(recipe).is_dir():
            raise UserError(
                f"vislang train {recipe} needs a run folder to fill: add --out runs/{recipe}."
            )
        out = Path(recipe)
    code = train_and_tell(config, out)
    if code == 0:
        if not config.data.valid:
            tell(f"Next: vislang evaluate {out} --source SOURCE")
        tell(f"Next: vislang report {out}")
    return code


def train_and_tell(config: TrainConfig, out: Path) -> int:
    """Train, say where things are; 0, or the exit code of a clean stop by a signal."""
    from vislang.train import Stopped
    from vislang.train import train as run_training
    from vislang.train.data_of import with_data

    config = with_data(config)
    judge = judge_of(config, out)
    tell(f"Training: {out} (stop with Ctrl-C, go on with `vislang train {out}`)")
    try:
        last = run_training(config, out, judge=judge)
    except Stopped as stop:
        tell(str(stop))
        return 128 + stop.signal
    tell(f"Trained: {last}")
    return 0


def judge_of(config: TrainConfig, out: Path) -> Callable[..., Any] | None:
    """What scores the model while it trains: the config's evaluations on its data.valid.

    Recipes ask for evaluations that not every source can serve; those are left out, aloud.
    """
    asked = config.run.evaluations
    if not asked or not config.data.valid:
        return None
    from vislang.cli.evaluate import servable
    from vislang.data.sources import open_source
    from vislang.evaluate import judge_from_config
    from vislang.models.saved import sides_of

    source = open_source(config.data.valid, **config.data.valid_options)
    sides = sides_of(config.model)
    names = tuple(servable(source, asked, sides))
    fitting = servable(source, asked)
    for name in asked:
        if name not in fitting:
            tell(f"{name} is left out: {config.data.valid} lacks what it needs.")
        elif name not in names:
            tell(f"{name} is left out: the model has no side but {' and '.join(sides)}.")
    return judge_from_config(replace(config, run=replace(config.run, evaluations=names)), out)


def tell(text: str) -> None:
    """Print, from the first of several processes only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)
