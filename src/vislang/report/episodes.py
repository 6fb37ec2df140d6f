"""Episodes that clustered their samples: what K-means found, groups to look at, a map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.files import read_json
from vislang.metrics.flatten import flatten
from vislang.report import scatter
from vislang.report.collect import Run
from vislang.report.markup import Html, foreign, join, tag
from vislang.report.pictures import Finder, Origin, Pictures
from vislang.report.plots import Series, line_chart
from vislang.report.tables import table
from vislang.report.values import finite

MOST_ROWS = 200


def episodes(run: Run, finder: Finder) -> Html | None:
    """Log, curves, groups and map of a run's episodes; None if it had none that clustered."""
    lines = [line for line in run.log.episodes if isinstance(line.get("sides"), Mapping)]
    if not lines:
        return None
    return join(
        [
            tag("p", _sentence(run, lines)),
            tag("div", _curves(lines), class_="curves"),
            _log(run.log.episodes),
            _last(run, finder),
        ]
    )


def _sentence(run: Run, lines: list[Mapping[str, Any]]) -> Html:
    last = lines[-1]
    used = ", ".join(
        f"{side['used']:,.0f} of {side['clusters']:,} {name} clusters"
        for name, side in last["sides"].items()
        if finite(side.get("used")) is not None
    )
    return foreign(
        f"{len(run.log.episodes):,} episodes, {len(lines):,} of them clustered. In the last one"
        f" the samples were spread as over {used} of equal size.",
        400,
    )


def _curves(lines: list[Mapping[str, Any]]) -> list[Html]:
    sides = list(lines[-1]["sides"])

    def curve(title: str, pick: Any, **options: Any) -> Html:
        drawn = []
        for colour, name in enumerate(sides):
            points = [
                (int(line["episode"]), value, None, None)
                for line in lines
                if (value := finite(pick(line["sides"].get(name, {})))) is not None
            ]
            drawn.append(Series(name, points, colour))
        return line_chart(title, drawn, x_name="episode", **options)

    agreement = [
        (int(line["episode"]), value, None, None)
        for line in lines
        if (value := finite(line.get("image_text_nmi"))) is not None
    ]
    return [
        curve("clusters in use (entropy)", lambda side: side.get("used")),
        curve("K-means error, last iteration", lambda side: (side.get("errors") or [None])[-1]),
        line_chart(
            "agreement of image and text clusters (NMI)",
            [Series("NMI", agreement)],
            x_name="episode",
            fraction=True,
        ),
    ]


def _log(lines: list[Mapping[str, Any]]) -> Html:
    columns = [
        "episode", "first step", "phase", "side", "K-means error: first", "last", "clusters",
        "not empty", "smallest", "largest", "seconds",
    ]  # fmt: skip
    rows: list[list[Any]] = []
    for line in lines[-MOST_ROWS:]:
        head = [line.get("episode"), line.get("step"), str(line.get("phase", ""))]
        sides = line.get("sides")
        if not isinstance(sides, Mapping):
            rows.append([*head, "", *[None] * 7])
            continue
        for name, side in sides.items():
            errors = side.get("errors") or [None]
            sizes = [side.get(k) for k in ("clusters", "not_empty", "smallest", "largest")]
            rows.append([*head, str(name), errors[0], errors[-1], *sizes, line.get("seconds")])
    return table(columns, rows, "Episodes")


def _last(run: Run, finder: Finder) -> list[Html]:
    """Groups and map of the last episode whose files can be read."""
    files = sorted((run.folder / "episodes").glob("[0-9]*.json"))
    for path in reversed(files):
        try:
            kept = read_json(path)
            groups = [group for group in kept["groups"] if isinstance(group, Mapping)]
            ids = [str(id_) for id_ in kept["ids"]]
        except (OSError, UserError, ValueError, KeyError, TypeError):
            continue
        wanted = [str(sample["id"]) for group in groups for sample in group["samples"]]
        origin = Origin(run.get("data.train") or "", run.get("data.train_options") or {})
        pictures = finder.find([*wanted, *ids], [origin], "")
        shown = [tag("p", foreign(note), class_="missing") for note in pictures.notes]
        shown += [tag("h3", foreign(f"Groups of episode {kept.get('episode')}"))]
        shown += [_group(group, pictures) for group in groups]
        return shown + _map(path.with_suffix(".npz"), ids, pictures)
    return [tag("p", "No file of an episode could be read: no groups, no map.", class_="missing")]


def _group(group: Mapping[str, Any], pictures: Pictures) -> Html:
    """The members nearest to a centroid: pictures, or captions where texts were grouped."""
    side, samples = str(group.get("side")), group["samples"]
    title = f"{side} cluster {group.get('cluster')}: {group.get('size')} samples"
    cards = [
        tag(
            "li",
            pictures.show(str(sample["id"]), "example"),
            tag("span", foreign(sample.get("text"), 120), class_="said"),
        )
        for sample in samples
    ]
    return tag("div", tag("h4", foreign(title, 80)), tag("ul", cards), class_="group")


def _map(path: Path, ids: list[str], pictures: Pictures) -> list[Html]:
    """Projected images in two dimensions, coloured by the cluster of their text."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            rows = kept["image"].astype(np.float64)
            labels = kept["text_labels"].tolist()
    except (OSError, ValueError, KeyError):
        return [tag("p", "The rows for the map could not be read.", class_="missing")]
    if len(rows) != len(ids) or len(rows) < 2 or not np.isfinite(rows).all():
        return [tag("p", "The rows for the map do not fit their ids.", class_="missing")]
    flat, method = flatten(rows)
    part = {
        "ids": ids,
        "x": flat[:, 0].tolist(),
        "y": flat[:, 1].tolist(),
        "label": [f"text cluster {label}" for label in labels],
        "method": method,
    }
    title = f"Map of images ({method}), coloured by the cluster of their captions"
    return [tag("h3", title), *scatter.scatter(part, pictures)]
