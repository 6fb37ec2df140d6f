"""docs/coming_from.md: no flag of the originals is left out, and every flag of ours is one.

That its commands are understood is tested with those of the other pages (test_docs.py).
"""

import inspect
import json
import re
from pathlib import Path

import pytest

from vislang.lookup import lookup
from vislang.objectives import OBJECTIVES
from vislang.objectives.build import _schema

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/coming_from.md").read_text(encoding="utf-8")
ORIGINAL = json.loads((ROOT / "tests/golden/original_flags.json").read_text())
OURS = set(re.findall(r"--([a-z]\S*)", (ROOT / "tests/golden/flags.txt").read_text()))
FLAG = re.compile(r"--([A-Za-z][\w.-]*)")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| there")
]


def named(cell: str) -> set[str]:
    """Flags in the code of a cell."""
    return {flag for code in re.findall(r"`([^`]*)`", cell) for flag in FLAG.findall(code)}


@pytest.mark.parametrize("program", ORIGINAL)
def test_every_flag_of_the_originals_has_a_row(program):
    there = {flag.replace("-", "_") for row in ROWS for flag in named(row[0])}
    assert set(ORIGINAL[program]) - there == set()


def test_older_spellings_have_a_row():
    there = set().union(*(named(row[0]) for row in ROWS))
    assert {"distiller", "eval-data-dir", "wd", "unlock-image-model", "unlock-text-model"} <= there


def test_every_row_says_what_to_do():
    for row in ROWS:
        assert row[1] or (len(row) > 2 and row[2]), row[0]


@pytest.mark.parametrize("cell", sorted({row[1] for row in ROWS if row[1]}))
def test_flags_of_ours_exist(cell):
    for flag in named(cell):
        known = re.sub(r"(options)\..*$", r"\1", flag)  # a key of an option
        assert {flag, known} & OURS or flag == "model.text", f"there is no --{flag}"


def test_options_of_objectives_exist():
    known = set().union(*(_schema(lookup("objective", OBJECTIVES, n))[0] for n in OBJECTIVES))
    cells = [cell for row in ROWS for cell in row[1:]]
    asked = {flag for cell in cells for flag in named(cell)}
    options = {f.removeprefix("objective.options.") for f in asked if "objective.options." in f}
    assert len(options) > 15
    assert options - known == set()


def test_options_of_towers_and_tables_exist():
    from vislang.data.sources.table import Table
    from vislang.models.towers.huggingface import HuggingfaceOptions
    from vislang.models.towers.scratch_text import TextOptions
    from vislang.models.towers.scratch_vit import VitOptions
    from vislang.models.towers.timm import TimmOptions

    text = {*HuggingfaceOptions.__dataclass_fields__, *TextOptions.__dataclass_fields__}
    text.add("name")  # open_clip's
    image = {*TimmOptions.__dataclass_fields__, *VitOptions.__dataclass_fields__}
    table = set(inspect.signature(Table).parameters)
    fields = {"model.text.options": text, "model.image.options": image, "data.train_options": table}
    asked = {flag for row in ROWS for flag in named(row[1])}
    for prefix, known in fields.items():
        options = {f.removeprefix(prefix + ".") for f in asked if f.startswith(prefix + ".")}
        assert options
        assert options <= known
