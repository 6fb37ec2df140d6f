"""The structure: imports point only downwards, files stay small.

The order is read from the folder list of docs/architecture.md, so the page cannot drift from the
code.  `python tests/test_imports.py` prints the report.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vislang"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, GOAL_LINES, GOAL_FUNCTION = 400, 300, 40


def folder_order() -> tuple[list[str], set[str]]:
    """Parts from top to bottom as docs/architecture.md lists them, and which of them are nouns."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.partition("    src/vislang/\n")[2].partition("    benchmarks/")[0]
    order: list[str] = []
    nouns: set[str] = set()
    section = "files"
    for line in block.splitlines():
        if found := re.match(r"      -- (\w+)", line):
            section = found[1]
        elif found := re.match(r"      (\w+)(?:\.py|/) ", line):
            order.append(found[1])
            if section == "nouns":
                nouns.add(found[1])
    return order, nouns


ORDER, NOUNS = folder_order()


def part_of(path: Path) -> str:
    """The part of the house that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part) of every import of vislang in a file.

    Imports inside functions count, and so do the "vislang.module:Name" texts of the registries.
    """
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [stem, node.module or ""]))
            modules = (
                [f"{module}.{a.name}" for a in node.names] if module == "vislang" else [module]
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            modules = re.findall(r"^(vislang\.[\w.]+):\w+$", node.value)
        for module in modules:
            parts = module.split(".")
            if parts[0] == "vislang" and len(parts) > 1 and not parts[1].startswith("__"):
                yield getattr(node, "lineno", 0), parts[1]


def allowed(importer: str, target: str) -> bool:
    """Whether a part may import another.

    >>> allowed("train", "data"), allowed("data", "train"), allowed("data", "models")
    (True, False, False)
    """
    if importer == target or importer == "__main__":
        return True
    if importer in NOUNS and target in NOUNS:
        return False
    return ORDER.index(target) < ORDER.index(importer)


def test_the_page_lists_what_there_is():
    there = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert there == set(ORDER)
    assert {"data", "models", "objectives", "metrics", "store"} == NOUNS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    importer = part_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for line, target in imported(path)
        if importer != "__init__" and not allowed(importer, target)
    ]
    assert not wrong, "docs/architecture.md lists what a folder may import: " + "; ".join(wrong)


def test_an_upward_import_would_be_found(tmp_path, monkeypatch):
    for text in ("def f():\n    from vislang.train.loop import train",
                 "import vislang.train", "T = {'a': 'vislang.train.loop:train'}",
                 "from vislang import train", "from ..train import loop"):  # fmt: skip
        file = PACKAGE / "data" / "imaginary.py"
        monkeypatch.setattr(Path, "read_text", lambda self, encoding, text=text: text)
        assert [target for _, target in imported(file)] == ["train"], text


def test_no_file_is_long():
    long = {str(p.relative_to(ROOT)): n for p, n in line_counts() if n > MOST_LINES}
    assert not long, f"files of more than {MOST_LINES} lines: {long}"


def test_no_file_has_a_name_that_says_nothing():
    empty = {"utils", "util", "common", "base", "misc", "helpers"}
    assert not [path for path in FILES if path.stem in empty]


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["train", "--help"], ["embed", "-h"]])
def test_help_and_list_import_nothing_heavy(arguments, child_environment):
    program = (
        "import sys; from vislang.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'PIL', 'sklearn', 'open_clip', 'pyarrow'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=child_environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def line_counts() -> list[tuple[Path, int]]:
    """Every source, test and benchmark file with its number of lines, longest first."""
    files = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    counts = [(p, len(p.read_text(encoding="utf-8").splitlines())) for p in files]
    return sorted(counts, key=lambda item: -item[1])


def functions() -> Iterator[tuple[str, int]]:
    """Every function of the package with its number of lines, docstring left out."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                first = node.body[0]
                if ast.get_docstring(node, clean=False) is not None:
                    lines -= (first.end_lineno or first.lineno) - first.lineno + 1
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", lines


def report() -> str:
    """The structure in words: who imports whom, how long files and functions are."""
    edges: dict[str, set[str]] = {}
    for path in FILES:
        edges.setdefault(part_of(path), set()).update(t for _, t in imported(path))
    lines = ["part imports"]
    for part in ORDER:
        below = sorted(edges.get(part, set()) - {part}, key=ORDER.index)
        lines.append(f"  {part:<12}{', '.join(below) or '-'}")
    upward = [(i, t) for i, ts in edges.items() if i in ORDER for t in ts if not allowed(i, t)]
    lines.append(f"imports that point upwards or between nouns: {upward or 'none'}")
    counts = line_counts()
    lines.append(f"files: {len(counts)}, lines: {sum(n for _, n in counts):,}; longest:")
    lines += [f"  {n:>5} {p.relative_to(ROOT)}" for p, n in counts[:10]]
    sizes = sorted(functions(), key=lambda item: -item[1])
    middle = sizes[len(sizes) // 2][1]
    p90 = sizes[len(sizes) // 10][1]
    over = [s for s in sizes if s[1] > GOAL_FUNCTION]
    lines.append(f"functions: {len(sizes)}, median {middle}, 90 % within {p90} lines;")
    lines += [f"  {n:>5} {name}" for name, n in over]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
