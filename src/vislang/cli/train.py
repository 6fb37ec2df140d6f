"""vislang train: a recipe with any field changed, trained, judged while it trains, resumed."""

import os
from collections.abc import Callable
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
    if code == 0 and is_first():
        print(f"Next: vislang report {out}")
    return code


def train_and_tell(config: TrainConfig, out: Path) -> int:
    """Train, say where things are; 0, or the exit code of a clean stop by a signal."""
    from vislang.train import train as run_training
    from vislang.train.stop import Stopped

    try:
        run_training(config, out, judge=judge_of(config))
    except Stopped as stop:
        if is_first():
            print(f"{stop}\nTo go on: vislang train {out}", flush=True)
        return 128 + stop.signal
    if is_first():
        print(f"Trained: {out} (config.yaml, log.jsonl, checkpoints/, scores/)", flush=True)
    return 0


def judge_of(config: TrainConfig) -> Callable[..., Any] | None:
    """What scores the model while it trains, when the config asks for evaluations."""
    if not config.run.evaluations:
        return None
    from vislang.evaluate import make_judge

    return make_judge(config)


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
