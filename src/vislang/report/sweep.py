"""A sweep on the page and as tables: a row a run, what failed and why, and which is the best."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.evaluate.scores import table_csv, table_markdown
from vislang.files import read_json, write_whole
from vislang.report.collect import read_run
from vislang.report.drift import best, outcomes_of
from vislang.report.markup import Html, foreign, join, tag
from vislang.report.plots import Series, line_chart
from vislang.report.sections import Section
from vislang.report.tables import plain_text, table
from vislang.report.values import Value, finite

NOTE = "sweep.json"


def is_sweep(folder: Path) -> bool:
    """Whether `vislang sweep` filled this folder."""
    return (folder / NOTE).is_file()


def runs_of(folder: Path) -> list[Path]:
    """The run folders of a sweep that finished; a sweep without one is an error."""
    found = [
        folder / "runs" / row["run"]
        for row in read_json(folder / NOTE)["rows"]
        if row["status"] == "finished"
    ]
    if not found:
        raise UserError(f"No run of the sweep {folder} finished; {folder / NOTE} has the reasons.")
    return found


def _tables(made: Mapping[str, Any]) -> dict[str, dict[str, list]]:
    """Name -> {"columns", "rows"}: all runs, and the means over seeds where there are several."""
    fields, watch = made["fields"], made["watch"]
    columns = ["run", *fields, watch, "low", "high", "n", "step", "seconds", "status"]
    rows = [
        [row["run"], *(plain_text(row["values"][f]) for f in fields)]
        + [row.get(key) for key in ("value", "low", "high", "n", "step", "seconds")]
        + [row["status"] if row["status"] == "finished" else f"failed: {row['why']}"]
        for row in made["rows"]
    ]
    tables = {"runs": {"columns": columns, "rows": rows}}
    if any(mean["seeds"] > 1 for mean in made["means"]):
        others = [field for field in fields if field != "run.seed"]
        tables["means"] = {
            "columns": [*others, f"mean of {watch}", "low", "high", "seeds"],
            "rows": [
                [*(plain_text(mean["values"][f]) for f in others), mean["value"],
                 mean.get("low"), mean.get("high"), mean["seeds"]]
                for mean in made["means"]
            ],
        }  # fmt: skip
    return tables


def sweep_tables(made: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a sweep as Markdown."""
    return {name: table_markdown(one) for name, one in _tables(made).items()}


def write_tables(made: Mapping[str, Any], folder: Path) -> None:
    """Write sweep.md and sweep.csv, and sweep-means.csv where there are several seeds."""
    tables = _tables(made)
    write_whole(folder / "sweep.csv", table_csv(tables["runs"]))
    if "means" in tables:
        write_whole(folder / "sweep-means.csv", table_csv(tables["means"]))
    parts = [*sweep_tables(made).values(), said(made, folder)]
    write_whole(folder / "sweep.md", "\n\n".join(parts) + "\n")


def said(made: Mapping[str, Any], folder: Path) -> str:
    """Which is best, how sure that is, and what to do next."""
    if not made["best"]:
        return "No run finished, so none is the best."
    top = made["best"]
    values = ", ".join(f"{field}={plain_text(v)}" for field, v in top["values"].items())
    many = len(top["runs"]) > 1
    held = made["means"] if many else made["rows"]
    names = "runs" if many else "run"
    row = next(r for r in held if r[names] == (top["runs"] if many else top["runs"][0]))
    text = f"Best on {made['valid']['source']}: {values}, {made['watch']} {row['value']:.4g}"
    low, high = finite(row.get("low")), finite(row.get("high"))
    if low is not None and high is not None:
        over = f", over {len(top['runs'])} seeds" if many else ""
        text += f" (95% interval {low:.4g} to {high:.4g}{over})"
    others = [mean for mean in made["means"] if mean is not row]
    sure = all(_apart(row, o) for o in others) if many else _clear(made, folder, top["runs"][0])
    if not sure and len(held) > 1:
        text += "; it is not told apart from all others on these samples"
    where = folder / "runs" / top["runs"][0]
    return (
        f"{text}. Chosen on these samples, the number flatters it: test it on others, as in"
        f" `vislang evaluate {where} --source TEST`."
    )


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two means have intervals, and these do not overlap."""
    if not all("low" in mean for mean in (one, other)):
        return False
    return one["low"] > other["high"] or one["high"] < other["low"]


def _clear(made: Mapping[str, Any], folder: Path, top: str) -> bool:
    """Whether the best run is better than every other beyond chance (`drift.best`)."""
    evaluation, _, metric = made["watch"].partition(".")
    values, outcomes = {}, {}
    for row in made["rows"]:
        if row["status"] != "finished":
            continue
        values[row["run"]] = Value(
            row["value"], finite(row.get("low")), finite(row.get("high")), better=made["better"]
        )
        scores = read_run(folder / "runs" / row["run"]).scores
        for score in scores:
            if score.name == evaluation and score.step == row["step"]:
                found = outcomes_of(score, metric)
                if found:
                    outcomes[row["run"]] = found
    return best(values, outcomes) == top


def sweep_sections(folder: Path) -> list[Section]:
    """The section that the page of a sweep begins with."""
    made = read_json(folder / NOTE)
    body = [tag("p", foreign(said(made, folder), 2000), class_="lead")]
    body += [_drawn(made)]
    for name, one in _tables(made).items():
        body.append(table(one["columns"], one["rows"], f"Sweep: {name}"))
    return [Section("sweep", "Sweep", join(body))]


def _drawn(made: Mapping[str, Any]) -> Html:
    """The watched value against the one varied number, where there is one beside seeds."""
    fields = [field for field in made["fields"] if field != "run.seed"]
    many = any(mean["seeds"] > 1 for mean in made["means"])
    held = made["means"] if many else [r for r in made["rows"] if r["status"] == "finished"]
    points = [
        (finite(row["values"][fields[0]]), row["value"], finite(row.get("low")),
         finite(row.get("high")))
        for row in held
        if len(fields) == 1
    ]  # fmt: skip
    if len(points) < 2 or any(x is None for x, *_ in points):
        return Html("")
    ordered = sorted(points, key=lambda point: point[0] or 0.0)
    line = Series(made["watch"], ordered)  # type: ignore[arg-type]
    numbers = [point[0] for point in ordered]
    wide = numbers[0] > 0 and numbers[-1] / numbers[0] > 20  # type: ignore[operator]
    drawn = line_chart(made["watch"], [line], x_name=fields[0], log_x=wide)
    return tag("div", drawn, class_="curves")
