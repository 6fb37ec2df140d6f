"""The pages say what is true: commands, links, file trees, flags, words."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vislang.cli import main as cli
from vislang.cli.arguments import make_parser, read_arguments
from vislang.cli.list import KINDS, lines
from vislang.lookup import lookup

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands(path: Path) -> Iterator[str]:
    """Every `vislang ...` line in a page's code blocks, continued lines joined."""
    for block in re.findall(r"```(?:console|bash)\n(.*?)```", text_of(path), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|-m )(vislang .*)", line):
                yield found[1]


COMMANDS = [(path.name, line) for path in PAGES for line in commands(path)]


def test_the_pages_have_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_of_the_pages_are_understood(page, line, tmp_path, monkeypatch):
    """Each is parsed by the real parser; nothing is run."""
    from vislang.config import write_config
    from vislang.recipes import find_config

    monkeypatch.chdir(tmp_path)
    for run in ("runs/a", "runs/b"):  # what earlier commands of the page have left
        write_config(tmp_path / run / "config.yaml", find_config("clip"))
    name, arguments = cli.split_command(shlex.split(line, comments=True)[1:])
    if name.startswith("--"):
        assert cli.main([name]) == 0
    elif name == "list":
        assert cli.main([name, *arguments]) == 0
    else:
        command = lookup("command", cli.COMMANDS, name)
        assert read_arguments(command, arguments, f"vislang {name}") is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(page):
    for name in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./]+\.\w+)`", text_of(page)):
        if "/x.py" not in name and "results.jsonl" not in name:
            assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda path: path.name)
def test_flags_that_a_page_names_exist(page):
    known = {"--help", "--version", "--json", "--nproc-per-node"}
    for name in cli.COMMANDS:
        if name != "list":
            parser = make_parser(lookup("command", cli.COMMANDS, name), name)
            known |= set(parser._option_string_actions)
    for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*[\w]", text_of(page)):
        near = re.sub(r"(options)\..*$", r"\1", flag)  # a key of an option
        assert flag in known or near in known, f"{page.name} names the flag {flag}"


def test_make_targets_that_the_pages_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.M))
    for page in PAGES:
        named = re.findall(r"(?:`|^)make ([a-z-]+)", text_of(page), re.M)
        assert set(named) <= targets, page.name


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_says_in_one_line_what_it_is(kind):
    for name, line in lines(kind):
        assert 15 < len(line) <= 120, f"{kind} {name}: {line!r}"
        assert line.endswith((".", ")")), f"{kind} {name}: {line!r} is not a sentence"


def test_each_kind_has_a_place_where_its_parts_are_added():
    text = text_of(ROOT / "CONTRIBUTING.md")
    for registry in ("OBJECTIVES", "TOWERS", "SOURCES", "EVALUATIONS", "RECIPES", "COMMANDS"):
        assert f"`{registry}`" in text


def words() -> dict[str, str]:
    """Word -> what we do not say for it, from docs/words.md."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|([^|]*)\|$", text_of(ROOT / "docs/words.md"), re.M)
    return {
        word.strip(): other.strip() for word, other in rows if word.strip() not in ("word", "---")
    }


def test_words_are_sorted_and_cover_the_kinds():
    listed = list(words())
    assert listed == sorted(listed, key=str.lower)
    for kind in KINDS:
        assert kind.removesuffix("s") in listed
    for word in ("sample", "store", "run", "batch", "chunk", "checkpoint", "embedding", "rejected"):
        assert word in listed


def test_pages_and_help_use_one_word_for_one_thing():
    """Words that docs/words.md gives up are in no page and no docstring of a flag or command."""
    refused = {other: word for word, other in words().items() if other}
    texts = {page.name: text_of(page) for page in PAGES if page.name != "words.md"}
    for path in [ROOT / "src/vislang/config.py", *(ROOT / "src/vislang/cli").glob("*.py"),
                 *(ROOT / "src/vislang/recipes").glob("*.py")]:  # fmt: skip
        nodes = ast.walk(ast.parse(text_of(path)))
        kinds = (ast.Module, ast.FunctionDef, ast.ClassDef)
        texts[path.name] = "\n".join(
            ast.get_docstring(n) or "" for n in nodes if isinstance(n, kinds)
        )
    for name, text in texts.items():
        for other, word in refused.items():
            found = re.search(rf"\b{other}s?\b", text, re.I)
            assert not found, f"{name} says {other!r}; docs/words.md says {word!r}"


def test_the_run_folder_of_the_page_is_the_one_that_the_report_reads():
    text = text_of(ROOT / "docs/architecture.md")
    for name in ("config.yaml", "log.jsonl", "done.json", "scores/<step>/<evaluation>.json"):
        assert name in text
