"""The parts of a run's report: summary, what was trained on what, rejected samples, repeat."""

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vislang.report.collect import Run
from vislang.report.evaluation import headline_names, in_order, title_of
from vislang.report.markup import Html, breakable, duration, foreign, join, number, tag
from vislang.report.plots import whisker
from vislang.report.shifts import TOLD, only_told
from vislang.report.tables import facts, interval, plain_text, rejected, settings, span_of, table
from vislang.report.values import Value

MOST_FIGURES = 12  # at the head of a page
# Evaluations that read places of their own, so that each has a command of its own.
ALONE = (
    "words", "sentences", "passages", "triplets", "elevater", "finetune", "grounding", "detection",
    "grit",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in its list of contents."""

    id: str
    title: str
    body: Html


def status(run: Run) -> tuple[str, str]:
    """(kind, text): whether the run finished, was stopped, or its log just ends."""
    log = run.log
    at = f"step {log.last_step:,}"
    if log.end is not None:
        return "finished", f"finished at {at}"
    if log.stop is not None:
        return "stopped", f"stopped at {at}: {log.stop.get('why') or 'no reason given'}"
    if log.lines:
        return "unfinished", f"unfinished: the log ends at {at}"
    return "unfinished", "no training log"


def headline(run: Run) -> list[tuple[str, str, Value]]:
    """(evaluation, metric, value) of the few numbers that a reader looks for first."""
    found = []
    for score in in_order(run.latest):
        known = {name: value for name, value in score.values.items() if value.value is not None}
        names = headline_names(known) or [name for name in known if known[name].better][:1]
        found += [(title_of(score), name, known[name]) for name in names]
    return found[:MOST_FIGURES]


def sentence(run: Run) -> Html:
    """What was trained on what, in one sentence."""
    sides = [
        join([tag("strong", foreign(run.get(f"model.{side}.name"), 60)), f" {side} tower"])
        for side in ("image", "text")
        if run.get(f"model.{side}.name")
    ]
    parts: list[Any] = []
    if sides:
        parts += ["A ", Html(" beside a ".join(sides)), ", trained"]
        source, objective = run.get("data.train"), run.get("objective.name")
        parts += [" on ", tag("strong", foreign(source, 120))] if source else []
        parts += [" with ", tag("strong", foreign(objective, 80))] if objective else []
        seconds = run.log.seconds
        if run.log.lines:
            parts.append(f": {run.log.last_step:,} steps")
            parts.append(f" in {duration(seconds)}" if seconds else "")
        parts.append(".")
    else:
        made = next((s.provenance for s in run.latest.values() if s.provenance), {})
        if made.get("model") and made.get("source"):
            parts += ["Scores of ", tag("strong", foreign(made["model"], 120)), " on "]
            parts += [tag("strong", foreign(made["source"], 120)), "."]
        else:
            parts.append("A folder of scores; its config does not name the towers.")
    return join(parts)


def summary(run: Run) -> Html:
    """One sentence, the headline numbers, and what is missing or went wrong."""
    kind, text = status(run)
    figures = [_figure(title, name, value) for title, name, value in headline(run)]
    warnings = [
        f"{name} was NaN or infinite for the first time at step {step:,}."
        for name, step in run.log.not_finite.items()
    ]
    warnings += [f"Step {step:,}: {text}" for step, text in run.log.flags[:20]]
    # A probed model was trained elsewhere: that there is no log here is no news.
    notes = [n for n in run.notes if not (only_told(run) and n.startswith("There is no "))]
    return join(
        [
            tag("p", sentence(run), class_="lead"),
            tag("p", foreign(text), class_=f"status {kind}") if not only_told(run) else None,
            [tag("p", foreign(text)) for text in told(run)],
            tag("ul", figures, class_="figures") if figures else None,
            [tag("p", foreign(warning), class_="warning") for warning in warnings],
            [tag("p", foreign(note), class_="missing") for note in notes],
        ]
    )


def told(run: Run) -> list[str]:
    """The first sentence in which each analysis says what it found; of robustness, two."""
    found = []
    for score in in_order(run.latest):
        notes = score.body.get("notes") if score.evaluation in TOLD else None
        most = 2 if score.evaluation in ("robustness", "checkpoints") else 1
        found += [str(note) for note in notes[:most]] if isinstance(notes, list) else []
    return found


def _figure(title: str, name: str, value: Value) -> Html:
    low, high = span_of([value])
    return tag(
        "li",
        tag("span", foreign(title, 60), class_="of"),
        tag("span", breakable(name), class_="name"),
        tag("span", number(value.value), class_="value"),
        tag("span", interval(value) if value.has_interval else "no interval", class_="ends"),
        whisker(value, low, high),
    )


def trained(run: Run) -> Html:
    """Towers, data, objective, optimizer, machine and time."""
    if not run.config and not run.log.start:
        return tag("p", "Neither config.yaml nor the log says what was trained.", class_="missing")
    rows = []
    for side in ("image", "text"):
        tower = run.get(f"model.{side}")
        if isinstance(tower, Mapping):
            head = plain_text(tower.get("head"))
            head += f" ({plain_text(tower['head_options'])})" if tower.get("head_options") else ""
            start = plain_text(tower.get("pretrained") or "random")
            frozen = "frozen" if tower.get("frozen") else "trained"
            options = plain_text(tower.get("options"))
            rows.append([side, plain_text(tower.get("name")), options, start, head, frozen])
    columns = ["side", "tower", "options", "weights at the start", "head", "tower is"]
    groups = [
        ("Model", _model(run)),
        ("Data", _data(run)),
        ("Objective and optimizer", _optim(run)),
        ("Machine and time", _machine(run)),
    ]
    return join(
        [
            table(columns, rows, "The towers") if rows else None,
            tag(
                "div",
                [
                    tag("div", tag("h3", name), facts(pairs))
                    for name, pairs in groups
                    if facts(pairs)
                ],
                class_="columns",
            ),
        ]
    )


def _model(run: Run) -> list[tuple[str, Any]]:
    parameters = run.log.start.get("parameters")
    pairs: list[tuple[str, Any]] = [("recipe", run.get("recipe"))]
    if isinstance(parameters, Mapping):
        pairs += [(f"parameters, {name}", _count(item)) for name, item in parameters.items()]
    else:
        pairs.append(("parameters", _count(parameters)))
    pairs.append(("of these trained", _count(run.log.start.get("trainable"))))
    return [*pairs, ("width of the joint space", _count(run.get("model.width")))]


def _data(run: Run) -> list[tuple[str, Any]]:
    chunk = run.get("data.chunk")
    return [
        ("trained on", run.get("data.train")),
        ("options", _text(run.get("data.train_options"))),
        ("samples", _count(run.log.start.get("samples"))),
        ("evaluated on", run.get("data.valid")),
        ("its options", _text(run.get("data.valid_options"))),
        ("batch size", _count(run.get("data.batch_size"))),
        ("in chunks of", _count(chunk) if chunk else None),
        ("augmentation", run.get("data.augment")),
        ("caption of an image", run.get("data.caption")),
        ("rejected samples", _count(sum(r.count for r in run.log.rejected.values()))),
    ]


def _optim(run: Run) -> list[tuple[str, Any]]:
    steps, epochs = run.get("optim.steps"), run.get("optim.epochs")
    return [
        ("objective", run.get("objective.name")),
        ("its options", _text(run.get("objective.options"))),
        ("optimizer", "AdamW" if run.get("optim.betas") else None),
        ("learning rate", _text(run.get("optim.lr"))),
        ("warm-up", _text(run.get("optim.warmup"))),
        ("weight decay", _text(run.get("optim.weight_decay"))),
        ("gradient clipped at", _text(run.get("optim.clip_grad") or None)),
        ("length", f"{steps:,} steps" if isinstance(steps, int) and steps else None),
        ("epochs", _text(epochs) if not steps else None),
        ("seed", _text(run.get("run.seed"))),
    ]


def _machine(run: Run) -> list[tuple[str, Any]]:
    log = run.log
    machine = run.environment.get("machine")
    speeds = [value for _, value in log.curve("samples_per_s")]
    sessions = len(log.sessions)
    return [
        ("device", log.start.get("device") or run.get("run.device")),
        ("precision", log.start.get("precision") or run.get("run.precision")),
        ("processes", _count(log.start.get("processes"))),
        ("machine", _text(machine)),
        ("time", duration(log.seconds) if log.seconds else None),
        ("speed", f"{number(statistics.median(speeds))} samples/s (median)" if speeds else None),
        ("resumed", f"{sessions - 1} times" if sessions > 2 else "once" if sessions == 2 else None),
    ]


def _count(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str | None:
    """A setting in words, or None where there is nothing to say."""
    return None if value in (None, "", {}, []) else plain_text(value)


def rejections(run: Run) -> Html:
    """Rejected samples by reason, or that there were none."""
    if run.log.rejected:
        whole = sum(reason.count for reason in run.log.rejected.values())
        text = f"{whole:,} samples could not be used and were left out; nothing took their places."
        return join([tag("p", text, class_="note"), rejected(run.log.rejected)])
    if run.log.lines:
        return tag("p", "No sample was rejected.", class_="note")
    return tag(
        "p", "Without a log it is not known whether samples were rejected.", class_="missing"
    )


def _evaluations(run: Run, again: str) -> list[str]:
    """`vislang evaluate`, once for each place that the run was scored on."""
    suites: dict[tuple[str, str], dict[str, None]] = {}
    for score in in_order(run.latest):
        made = score.provenance
        name = str(made.get("suite") or score.evaluation)  # "shifts" is a suite "grounding"
        model = again if run.config else f"{shlex.quote(str(made.get('model')))} --out {again}"
        options = made.get("suite_options")
        flags = _places(run, name, made)
        flags += f" --suite_options {shlex.quote(json.dumps({name: options}))}" if options else ""
        # Those that read places of their own stand alone; the others are taken in one pass.
        alone = name if name in ALONE else ""
        suites.setdefault((f"{model}{flags}", alone), {})[name] = None
    return [f"vislang evaluate {command} --suite {shlex.quote(','.join(names))}"
            for (command, _), names in suites.items()]  # fmt: skip


def _places(run: Run, name: str, made: Mapping[str, Any]) -> str:
    """Where an evaluation found its samples, as flags."""
    if "data_root" in made:
        return f" --data_root {shlex.quote(str(made['data_root']))}"
    source, options = made.get("source"), made.get("source_options")
    valid, own = run.get("data.valid"), run.get("data.valid_options")
    # Without --source a run is tested on its data.valid. Scores of an opened source give its
    # name alone, without options: while training that is data.valid, too.
    elsewhere = not valid or name in ALONE or (options and (source, options) != (valid, own))
    if not source or not elsewhere:
        return ""
    flags = f" --source {shlex.quote(str(source))}"
    return flags + (f" --source_options {shlex.quote(json.dumps(options))}" if options else "")


def repeat(run: Run) -> Html:
    """The command that does the run again, and everything it depended on."""
    folder = str(run.folder)
    again = shlex.quote(f"{folder.rstrip('/')}-again")
    config = shlex.quote(f"{folder}/config.yaml")
    lines = [f"vislang train {config} --out {again}"] if run.config else []
    lines += _evaluations(run, again)
    lines.append(f"vislang report {again}")
    parts: list[Any] = [
        tag("p", "From the folder in which the run was started:", class_="note"),
        tag("pre", tag("code", "\n".join(lines)), tabindex="0", aria_label="Commands"),
        facts([("run folder", folder)]),
    ]
    for title, value in (("Full config", run.config), ("Environment", run.environment)):
        if value:
            parts.append(tag("details", tag("summary", title), settings(value, title)))
    return join(parts)
