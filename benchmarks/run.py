"""Run benchmarks, note their results, write the table of docs/benchmarks.md.

    python benchmarks/run.py [NAME ...] [--render]

A benchmark is a file here with `main()`, which checks that the compared results agree and returns
one dict or a list of them.  Keys that the table knows: case, value, unit, reference,
reference_is, ratio, target, met; any others become notes.  Each benchmark runs in a child process,
so that none warms up another; lines go to benchmarks/results.jsonl with machine, commit and date.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
COLUMNS = ("case", "value", "unit", "reference", "reference_is", "ratio", "target", "met")
ABOUT = ("benchmark", "machine", "versions", "commit", "date")
SKIPPED = 77  # exit code of a child whose peer library is not installed
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def names() -> list[str]:
    """Every file of this folder that has a main()."""
    files = [path for path in HERE.glob("*.py") if path.stem != "run"]
    return sorted(path.stem for path in files if "\ndef main(" in path.read_text("utf-8"))


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, what it can multiply, cores, memory."""
    info: dict[str, str] = {}
    source = Path("/proc/cpuinfo")
    for line in source.read_text().splitlines() if source.exists() else []:
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    own = set(info.get("flags", info.get("Features", "")).split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in FLAGS if flag in own],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(memory),
        "accelerator": _accelerator(),
    }


def _accelerator() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return ""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that do the work."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "pillow", "open_clip_torch", "clip-benchmark", "simplejpeg"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured; "+" when the tree had changes on top of it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "src", "benchmarks")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def run(name: str) -> list[dict[str, Any]]:
    """One benchmark in a child process; raises CalledProcessError when it or its gate fails."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        subprocess.run(
            [sys.executable, __file__, "--child", name, str(answer)], check=True, cwd=ROOT
        )
        rows = json.loads(answer.read_text())
    about = {
        "benchmark": name,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
    }
    return [about | {k: v for k, v in row.items() if k != "benchmark"} for row in rows]


def child(name: str, answer: Path) -> None:
    """In the child: import the benchmark, run its main(), write what it returns."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(HERE))
    sys.argv = [str(HERE / f"{name}.py")]
    sys.modules[name] = module  # so that its own worker processes can find its functions
    try:
        spec.loader.exec_module(module)
        rows = module.main()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vislang"):
            raise
        print(f"{name} is skipped: it needs the package {error.name}", file=sys.stderr)
        sys.exit(SKIPPED)
    rows = [rows] if isinstance(rows, dict) else rows or []
    answer.write_text(json.dumps(rows))


def read_results() -> list[dict[str, Any]]:
    """Every noted line, oldest first."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines() if line.strip()]


def table(results: list[dict[str, Any]]) -> str:
    """The newest result of every (benchmark, case, machine) as Markdown."""
    newest: dict[tuple, dict[str, Any]] = {}
    for row in results:
        newest[row["benchmark"], row.get("case", ""), json.dumps(row["machine"])] = row
    lines = [
        "| benchmark | case | result | reference | ratio | target | met | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    machines: list[str] = []
    for row in sorted(newest.values(), key=lambda r: (r["benchmark"], str(r.get("case", "")))):
        where = _describe(row["machine"])
        if where not in machines:
            machines.append(where)
        unit = row.get("unit", "")
        notes = [f"{k}: {_text(v)}" for k, v in row.items() if k not in (*COLUMNS, *ABOUT)]
        notes += [f"machine {machines.index(where) + 1}, {row['commit']}, {row['date'][:10]}"]
        met = {True: "yes", False: "**no**"}.get(row.get("met"), "")  # type: ignore[arg-type]
        reference = " ".join(
            filter(None, [_text(row.get("reference")), row.get("reference_is", "")])
        )
        cells = [
            row["benchmark"],
            row.get("case", ""),
            f"{_text(row.get('value'))} {unit}".strip(),
            reference,
            _text(row.get("ratio")),
            row.get("target", ""),
            met,
            "; ".join(notes),
        ]
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    lines += ["", *(f"Machine {i}: {text}." for i, text in enumerate(machines, 1))]
    return "\n".join(lines)


def _describe(where: dict[str, Any]) -> str:
    parts = [where["cpu"], f"{where['cores']} cores", f"{where['memory_gib']} GiB"]
    parts += [" ".join(where["flags"])] if where["flags"] else []
    parts += [where["accelerator"]] if where.get("accelerator") else []
    return ", ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "" if value is None else str(value)


def render() -> None:
    """Put the table between the markers of docs/benchmarks.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(read_results())}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run the named benchmarks (all, if none is named); 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", help=f"default all: {', '.join(names())}")
    parser.add_argument("--render", action="store_true", help="only write the table anew")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "ANSWER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]))
        return 0
    unknown = set(arguments.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}. Known: {', '.join(names())}")
    failed = []
    for name in [] if arguments.render else arguments.names or names():
        print(f"== {name}", flush=True)
        try:
            rows = run(name)
        except subprocess.CalledProcessError as error:
            if error.returncode != SKIPPED:
                print(f"{name} failed with exit code {error.returncode}", file=sys.stderr)
                failed.append(name)
            continue
        with RESULTS.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                print({k: v for k, v in row.items() if k not in ABOUT})
    render()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
