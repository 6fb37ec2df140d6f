"""Write docs/objectives.md: what is proved of each objective, from the tests and the benchmark.

    python tests/objectives_table.py

runs the tests of objectives (a minute or two) and takes speed ratios from benchmarks/results.jsonl
(`python benchmarks/run.py objectives`). A cell says yes only if its test ran and passed just now.
"""

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "objectives.md"
TESTS = ("golden", "golden_language", "golden_domains", "seam", "contract")
# Golden tests by objective; none where no original's numbers are to be had.
GOLDEN = {
    "infonce": ("test_infonce", "test_clip", "test_two_processes_of_the_original[infonce]"),
    "simcse": ("test_simcse",),
    "unicl": ("test_two_processes_of_the_original[unicl]",),
    "cross_entropy": ("test_cross_entropy",),
    "simreg": ("test_regression[simreg]",),
    "simreg_l1": ("test_regression[simreg_l1]",),
    "vicreg": ("test_redundancy_reduction[vicreg",),
    "barlow_twins": ("test_redundancy_reduction[barlow", "test_original_barlow"),
    "rkd": ("test_rkd",),
    "compress_1q": ("test_compress",),
    "seed": ("test_seed",),
    "dino": ("test_prototype_distillation[dino",),
    "protocpc": ("test_prototype_distillation[protocpc",),
    "protoclip": ("test_protoclip",),
    "ntxent": ("test_ntxent", "test_simclr_step"),
    "simsiam": ("test_simsiam_step",),
    "nnclr": ("test_nnclr",),
    "swav": ("test_swav", "test_sinkhorn"),
    "declip": ("test_declip_step",),
    "disentangle": ("test_disentangle",),
    "slip": ("test_slip_step", "test_language_guided_slip_step"),
}
HEAD = """# Objectives

What is proved of each objective; the defaults follow the paper named in its docstring, and
[differences](differences.md) says what others do. Made by `python tests/objectives_table.py`.

* **golden**: losses, gradients and states equal the numbers of an original program (by default or
  by the option that asks for its variant); "-" where we have no such numbers.
* **chunks**: embedded 1 or 5 rows at a time, two steps with state give the whole batch's losses,
  gradients and state to 1e-9 in float64. **processes**: so do 2 and 3 processes with unequal rows.
* **gradient**: agrees with finite differences. **time**: forward and backward at B = 1,024,
  D = 256, as a ratio to the implementation named (below 1: ours is faster).

| objective | golden | chunks | processes | gradient | time | against |
|---|---|---|---|---|---|---|
"""


def outcomes() -> dict[str, bool]:
    """Test name -> passed, of one pytest run over the objectives' tests."""
    files = [str(ROOT / "tests" / f"test_objectives_{name}.py") for name in TESTS]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *files],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return {str(case.get("name")): len(case) == 0 for case in cases}


def ratios() -> dict[str, tuple[float, str]]:
    """Newest speed ratio of each objective, and against whom."""
    found: dict[str, tuple[float, str]] = {}
    results = ROOT / "benchmarks" / "results.jsonl"
    for line in results.read_text().splitlines() if results.exists() else []:
        row = json.loads(line)
        if row.get("benchmark") == "objectives":
            found[row["case"].split(",")[0]] = (row["ratio"], row["reference_is"])
    return found


def verdict(tests: dict[str, bool], *prefixes: str) -> str:
    """yes, **no**, or "-" where no test has such a name."""
    passed = [ok for name, ok in tests.items() if name.startswith(prefixes)]
    return "-" if not passed else "yes" if all(passed) else "**no**"


def main() -> int:
    """Run, write the page; 1 if any cell is no."""
    from vislang.objectives import OBJECTIVES

    tests, times = outcomes(), ratios()
    lines = []
    for name in OBJECTIVES:
        ratio, against = times.get(name, (None, ""))
        cells = [
            f"`{name}`",
            verdict(tests, *GOLDEN[name]) if name in GOLDEN else "-",
            verdict(tests, f"test_chunks_give_what_the_whole_batch_gives[{name}]"),
            verdict(tests, "test_processes_with_different_rows_equal_one["),
            verdict(tests, f"test_gradient_agrees_with_finite_differences[{name}]"),
            "-" if ratio is None else f"{ratio:.2f}",
            against,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    return int(any("**no**" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
