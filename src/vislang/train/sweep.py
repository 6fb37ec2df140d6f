"""One recipe trained with several values of some fields, and which is best on the valid source.

    sweep.json   runs/<name>/ ...   units/<name>.json   settings.json

A run that cannot be trained is a row with its reason. The best is chosen by `run.watch` on
`data.valid`; data that test the chosen one must be others, or the number flatters it.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vislang.config import TrainConfig, to_dict, with_changes
from vislang.devices import processes
from vislang.errors import UserError
from vislang.files import read_json, run_units, write_json
from vislang.train.log import read_log
from vislang.train.loop import Judge, train
from vislang.train.patience import best, watched
from vislang.train.setup import FREE
from vislang.train.stop import Stopped

NOTE = "sweep.json"
# All runs are judged in one way, in places of their own.
FIXED = ("data.valid", "data.valid_options", "run.evaluations", "run.watch", "run.patience")
MOST = 1000  # runs


def read_vary(items: Sequence[str]) -> dict[str, list[Any]]:
    """Fields and their values, from 'field=value,value' texts that may be split at their commas.

    >>> read_vary(["optim.lr=1e-4", "1e-5", "run.seed=0,1"])
    {'optim.lr': ['1e-4', '1e-5'], 'run.seed': [0, 1]}
    """
    texts: list[str] = []
    for item in items:
        if "=" in item:
            texts.append(item)
        elif texts:
            texts[-1] += f",{item}"
        else:
            raise UserError(
                f"--vary must begin with a field, as in optim.lr=1e-4,1e-5; got {item}."
            )
    found: dict[str, list[Any]] = {}
    for text in texts:
        field, _, values = text.partition("=")
        read = [yaml.safe_load(value) for value in values.split(",") if value.strip()]
        if not read or field in found:
            raise UserError(
                f"--vary must give each field once, with its values, as in optim.lr=1e-4,1e-5;"
                f" got {text!r}."
            )
        found[field.strip()] = read
    return found


def combinations(
    config: TrainConfig, vary: Mapping[str, Sequence[Any]]
) -> dict[str, tuple[dict[str, Any], TrainConfig]]:
    """Name of a run -> (its values, its config), for every combination of the values.

    Raises:
        UserError: no such field, a value that does not fit, or a field that all runs must share.
    """
    if not vary:
        raise UserError("A sweep needs fields to vary, as in --vary optim.lr=1e-4,1e-5.")
    if fixed := [field for field in vary if field in FIXED]:
        raise UserError(f"{fixed[0]} decides which run is best, so it must be the same in all.")
    if (count := math.prod(map(len, vary.values()))) > MOST:
        raise UserError(f"These are {count:,} runs; a sweep has at most {MOST:,}.")
    lasts = [field.rpartition(".")[2] for field in vary]
    found: dict[str, tuple[dict[str, Any], TrainConfig]] = {}
    for values in itertools.product(*vary.values()):
        changed = with_changes(config, dict(zip(vary, values)))
        held = {field: _field(changed, field) for field in vary}
        words = []
        for field, last in zip(held, lasts):
            short = last if lasts.count(last) == 1 else field
            words.append(f"{short}-{_word(held[field])}")
        name = "_".join(words)
        if name in found and found[name][0] != held:
            name += f"_{len(found)}"
        found[name] = (held, changed)
    return found


def _field(config: TrainConfig, dotted: str) -> Any:
    value: Any = to_dict(config)
    for part in dotted.split("."):
        value = value[part]
    return value


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:60] or "none"


def sweep(
    config: TrainConfig,
    vary: Mapping[str, Sequence[Any]],
    folder: Path | str,
    judge_of: Callable[[TrainConfig, Path], Judge | None],
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train every combination that is not trained yet, and write `sweep.json`.

    Args:
        config: what the runs share; data.valid and run.evaluations must be given.
        vary: dotted field -> its values.
        folder: where runs and tables go; the same call goes on, also with further values.
        judge_of: (config of a run, its folder) -> what evaluates the model while it trains.
        tell: told what happens, a line at a time.

    Returns:
        What `sweep.json` holds: {"fields", "watch", "valid", "rows", "means", "best"}.

    Raises:
        UserError: nothing to choose by, impossible fields, or a folder of other settings.
    """
    folder = Path(folder)
    if processes().world > 1:
        raise UserError("A sweep runs in one process: start its runs by torchrun one by one.")
    if not (config.data.valid and config.run.evaluations):
        raise UserError(
            "A sweep chooses by a valid source, so it needs data.valid and run.evaluations."
            f" Got data.valid={config.data.valid!r}, run.evaluations={config.run.evaluations}."
        )
    runs = combinations(config, vary)
    for name in runs:
        note = folder / "units" / f"{name}.json"
        if note.exists() and read_json(note)["status"] != "finished":
            note.unlink()  # what failed is tried again

    def work(name: str, folder: Path) -> dict[str, Any]:
        tell(f"Run {name}: {list(runs).index(name) + 1} of {len(runs)}")
        changed, place = runs[name][1], folder / "runs" / name
        try:
            train(changed, place, judge=judge_of(changed, place))
            return {"status": "finished", **found_by(changed, place)}
        except Stopped as stop:  # the sweep stops with it
            tell(str(stop))
            raise SystemExit(128 + stop.signal) from stop
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            why = why if isinstance(error, UserError) else f"{type(error).__name__}: {why}"
            tell(f"Run {name} failed: {why}")
            return {"status": "failed", "why": why}

    settings = to_dict(config)
    for field in FREE:
        *parents, last = field.split(".")
        inner = settings
        for parent in parents:
            inner = inner[parent]
        inner.pop(last, None)
    judged = {field: _field(config, field) for field in FIXED}
    notes = run_units(folder, list(runs), work, {"config": settings, "judged": judged})
    rows = [{"run": name, "values": runs[name][0], **notes[name]} for name in runs]
    made = summary(rows, list(vary), config)
    write_json(folder / NOTE, made)
    return made


def found_by(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """What the valid source said of a finished run's last model, or with patience of its best."""
    lines = read_log(folder)
    values = watched(lines, config.run.watch)
    if not values:
        raise UserError("no evaluation was made: the valid source lacks what run.evaluations need")
    one = best(values) if config.run.patience else values[-1]
    assert one is not None
    kept = {key: one.found[key] for key in ("low", "high", "n", "interval") if key in one.found}
    seconds = sum(line["seconds"] for line in lines if line["kind"] == "end")
    return {"watch": one.name, "sign": one.sign, "step": one.step, "value": one.value, **kept,
            "seconds": seconds}  # fmt: skip


def summary(
    rows: Sequence[Mapping[str, Any]], fields: Sequence[str], config: TrainConfig
) -> dict[str, Any]:
    """Rows, means over seeds where seeds are among the fields, and the best."""
    done = [row for row in rows if row["status"] == "finished"]
    sign = done[0]["sign"] if done else 1
    means = _over_seeds(done, fields) if "run.seed" in fields else []
    choice = means if any(mean["seeds"] > 1 for mean in means) else done
    top = max(choice, key=lambda row: sign * row["value"], default=None)
    return {
        "fields": list(fields),
        "watch": done[0]["watch"] if done else config.run.watch,
        "better": "higher" if sign > 0 else "lower",
        "valid": {"source": config.data.valid, "options": config.data.valid_options},
        "rows": list(rows),
        "means": means,
        "best": top and {"runs": top.get("runs") or [top["run"]], "values": top["values"]},
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Mean over the seeds of each combination of the other fields, with Student's interval."""
    from vislang.metrics.intervals import normal_mean

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        key = str([row["values"][field] for field in fields if field != "run.seed"])
        groups.setdefault(key, []).append(row)
    found = []
    for group in groups.values():
        mean = normal_mean([row["value"] for row in group])  # type: ignore[arg-type]
        share = all(0 <= row["value"] <= 1 for row in rows)  # an accuracy has no interval below 0
        low, high = (max(mean.low, 0.0), min(mean.high, 1.0)) if share else (mean.low, mean.high)
        ends = {"low": low, "high": high} if len(group) > 1 else {}
        values = {f: v for f, v in group[0]["values"].items() if f != "run.seed"}
        found.append({"values": values, "runs": [row["run"] for row in group],
                      "seeds": len(group), "value": mean.value, **ends})  # fmt: skip
    return found
