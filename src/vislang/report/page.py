"""Put the page together: one HTML file that asks for nothing from anywhere.

The content-security policy forbids every request, and every script and style except the two that
are written here, named by their checksums; so even markup that slipped through could do nothing.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.files import write_whole
from vislang.report.collect import Run, read_runs
from vislang.report.compare import comparison
from vislang.report.curves import learning
from vislang.report.episodes import episodes
from vislang.report.evaluation import evaluation, in_order, title_of
from vislang.report.markup import Html, clip, comma, foreign, join, tag, visible
from vislang.report.pictures import Finder
from vislang.report.sections import Section, rejections, repeat, status, summary, trained
from vislang.report.shifts import only_told
from vislang.report.sweep import is_sweep, runs_of, sweep_sections


def write_report(
    runs: Sequence[Path], out: Path, *, open_source: Callable[..., Any] | None = None
) -> Path:
    """Write one offline HTML page about a run, or about several with their comparison.

    Args:
        runs: run folders (docs/architecture.md, "Run folder"), or one folder of a sweep.
        out: the file to write, or a folder that gets a report.html.
        open_source: finds pictures by opening sources; default vislang's own layouts.

    Returns:
        The file that was written.

    Raises:
        UserError: no run was given, or a folder is no run folder.
    """
    out = Path(out)
    if out.is_dir():
        out = out / "report.html"
    elif out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"out must be a folder or end in .html, got {str(out)!r}.")
    given = [Path(run) for run in runs]
    sweeps = [folder for folder in given if is_sweep(folder)]
    if sweeps and len(given) > 1:
        raise UserError(f"{sweeps[0]} is a sweep, which has a page of its own: give it alone.")
    read = read_runs(runs_of(sweeps[0]) if sweeps else given)
    write_whole(out, page(read, open_source, sweeps[0] if sweeps else None))
    return out


def write_sections(title: str, sections: Sequence[Section], out: Path | str) -> Path:
    """Write one offline page of sections that are not about a run."""
    body = [_section(section) for section in sections]
    write_whole(out, _document(title, [], body, [_entry(section) for section in sections]))
    return Path(out)


def page(
    runs: Sequence[Run],
    open_source: Callable[..., Any] | None = None,
    sweep: Path | None = None,
) -> str:
    """The whole page as text; of a sweep, its table first."""
    finder = Finder(open_source)
    first = sweep_sections(sweep) if sweep else []
    if len(runs) == 1 and not first:
        title = runs[0].name
        parts = _sections(runs[0], finder, "")
        body = [_section(section) for section in parts]
        entries = [_entry(section) for section in parts]
        place = [section.title for section in parts].index("Evaluations") + 1
        entries[place:place] = _jumps(runs[0], "", "sub")
    else:
        title = f"{len(runs)} runs compared"
        if sweep:
            title = f"Sweep {sweep.resolve().name}"
        compared = [*first, *comparison(runs)]
        body = [_section(section) for section in compared]
        entries = [_entry(section) for section in compared]
        body.append(tag("h2", "Each run", class_="each"))
        for place, run in enumerate(runs, 1):
            parts = _sections(run, finder, f"run-{place}-")
            body.append(_folded(run, parts, place))
            entries.append(tag("li", tag("a", foreign(run.name, 40), href=f"#run-{place}")))
    return _document(title, runs, body, entries)


def _sections(run: Run, finder: Finder, prefix: str) -> list[Section]:
    scored = [
        evaluation(run, score, finder, f"{prefix}eval-{place}")
        for place, score in enumerate(in_order(run.latest), 1)
    ]
    jumps = tag("ul", _jumps(run, prefix), class_="jumps") if len(scored) > 1 else None
    if not scored:
        scored = [tag("p", "The run was not evaluated yet.", class_="missing")]
    if only_told(run):
        return [
            Section(f"{prefix}summary", "Summary", summary(run)),
            Section(f"{prefix}evaluations", "Evaluations", join([jumps, scored])),
        ]
    clustered = episodes(run, finder)
    return [
        Section(f"{prefix}summary", "Summary", summary(run)),
        Section(f"{prefix}trained", "What was trained", trained(run)),
        Section(f"{prefix}curves", "Learning curves", learning(run)),
        *([Section(f"{prefix}episodes", "Episodes", clustered)] if clustered else []),
        Section(f"{prefix}evaluations", "Evaluations", join([jumps, scored])),
        Section(f"{prefix}rejected", "Rejected samples", rejections(run)),
        Section(f"{prefix}repeat", "Provenance and repeating", repeat(run)),
    ]


def _jumps(run: Run, prefix: str, kind: str | None = None) -> list[Html]:
    """Links to the evaluations of a run."""
    return [
        tag(
            "li",
            tag("a", foreign(title_of(score), 60), href=f"#{prefix}eval-{place}"),
            class_=kind,
        )
        for place, score in enumerate(in_order(run.latest), 1)
    ]


def _section(section: Section) -> Html:
    return tag("section", tag("h2", section.title), section.body, id=section.id, class_="part")


def _deeper(markup: Html) -> Html:
    """Headings one level down; foreign text is escaped, so only headings look like headings."""
    return Html(re.sub(r"<(/?)h([2-5])\b", lambda m: f"<{m[1]}h{int(m[2]) + 1}", markup))


def _entry(section: Section) -> Html:
    return tag("li", tag("a", section.title, href=f"#{section.id}"))


def _folded(run: Run, parts: Sequence[Section], place: int) -> Html:
    _, text = status(run)
    return tag(
        "details",
        tag("summary", tag("span", foreign(run.name, 80)), tag("small", foreign(text))),
        [_deeper(_section(part)) for part in parts],
        id=f"run-{place}",
        class_="one",
    )


def _document(
    title: str, runs: Sequence[Run], body: Sequence[Html], entries: Sequence[Html]
) -> str:
    style, script = _own("page.css") + _own("figures.css"), _own("page.js")
    policy = (
        "default-src 'none'; img-src data:;"
        f" style-src {_checksum(style)}; script-src {_checksum(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{visible(clip(title, 120))} – vislang report"),
        tag("style", Html(style)),
    ]
    content = [
        tag("a", "Skip to the report", href="#report", class_="skip"),
        _top(title, runs),
        tag("nav", tag("ol", entries), aria_label="Contents"),
        tag("main", body, id="report", tabindex="-1"),
        _foot(),
        tag("script", Html(script)),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', content), lang='en')}\n"


def _top(title: str, runs: Sequence[Run]) -> Html:
    names = None
    if len(runs) > 1:
        names = tag("p", comma(foreign(run.name, 60) for run in runs), class_="names")
    return tag(
        "header",
        tag("p", "vislang report", class_="brand"),
        tag("h1", foreign(title, 120)),
        names,
        class_="top",
    )


def _foot() -> Html:
    from vislang import __version__

    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    text = f"Made by vislang {__version__} on {made}. This file holds everything it shows."
    return tag("footer", text)


def _own(name: str) -> str:
    """The page's own style or script, shipped with the package."""
    return (files("vislang.report") / name).read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
