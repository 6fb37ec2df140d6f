"""The command line: its frozen flags, its errors, what it costs to start.

`python tests/test_cli.py` writes tests/golden/flags.txt anew after a wanted change.
"""

import inspect
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vislang.cli import main as cli
from vislang.cli.arguments import make_parser, read_arguments
from vislang.cli.wording import value_word
from vislang.config import TrainConfig
from vislang.errors import UserError
from vislang.lookup import lookup

FLAGS = Path(__file__).parent / "golden" / "flags.txt"
COMMANDS = [name for name in cli.COMMANDS if name != "list"]


def flag_lines() -> list[str]:
    """Every command with its positional arguments and flags, in the order of the help."""
    lines = ["list [KIND] [--json]"]
    for name in COMMANDS:
        parser = make_parser(lookup("command", cli.COMMANDS, name), f"vislang {name}")
        for action in parser._actions:
            if action.dest == "help" or action.help == "==SUPPRESS==":
                continue
            word = f"{action.option_strings[0]} {action.metavar}" if action.option_strings else (
                action.dest.upper() + " ..." * (action.nargs == "+"))  # fmt: skip
            lines.append(f"{name} {word}" + " (required)" * bool(action.required))
    return lines


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    """The real command in a child process."""
    return subprocess.run(
        [sys.executable, "-m", "vislang", *arguments], capture_output=True, text=True, **options
    )


def error_of(capsys, *arguments: str) -> str:
    """What a command that must fail with exit code 2 says."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err


def test_flags_are_those_that_were_frozen():
    assert flag_lines() == FLAGS.read_text().splitlines(), (
        "The flags changed. If this is wanted, `python tests/test_cli.py` freezes them anew."
    )


def test_every_field_of_the_config_is_a_flag():
    from vislang.cli.arguments import flat_fields

    lines = set(flag_lines())
    for dotted, value in flat_fields(TrainConfig()):
        if dotted != "recipe":
            assert f"train --{dotted} {value_word(type(value), value)}" in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_help(command):
    parser = make_parser(lookup("command", cli.COMMANDS, command), command)
    assert parser.description
    assert not [action.dest for action in parser._actions if not action.help]


@pytest.mark.parametrize("command", [*COMMANDS, "list"])
def test_help_of_each_command(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    assert f"vislang {command}" in capsys.readouterr().out


def test_help_lists_every_command_with_its_line(capsys):
    assert cli.main(["--help"]) == cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in cli.COMMANDS:
        assert any(line.startswith(f"  {name} ") and len(line) > 20 for line in lines), name


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["no command 'trian'", "Did you mean 'train'", "demo, train, sweep"]),
        (["--versoin"], ["no flag '--versoin'"]),
        (["train"], ["vislang train needs RECIPE"]),
        (["train", "clpi", "--out", "a"], ["No recipe is called 'clpi'", "Did you mean 'clip'"]),
        (["train", "no/such.yaml", "--out", "a"], ["There is no config file no/such.yaml"]),
        (["train", "tests", "--out", "a"], ["folder without config.yaml", "clip, "]),
        (["train", "clip"], ["needs a run folder", "--out runs/clip"]),
        (["train", "clip", "more", "--out", "a"], ["no use for the argument 'more'"]),
        (["train", "clip", "--optim.lrr", "1"], ["no flag --optim.lrr", "--optim.lr?"]),
        (["train", "clip", "--lr", "1"], ["no flag --lr", "Did you mean --optim.lr?"]),
        (["train", "clip", "--optim.l", "1"], ["no flag --optim.l", "--optim.lr?"]),
        (["train", "clip", "--optim.lr", "fast"], ["--optim.lr", "float", "fast"]),
        (["train", "clip", "--data.batch_size", "1.5"], ["--data.batch_size", "int", "1.5"]),
        (["train", "clip", "--run.compile", "maybe"], ["--run.compile", "bool", "maybe"]),
        (["train", "clip", "--out"], ["--out"]),
        (["train", "clip", "--model.image.options", "depth"], ["model.image.options", "depth"]),
        (["list", "towr"], ["knows no 'towr'", "Did you mean 'towers'"]),
        (["list", "--jsn"], ["vislang list", "--jsn"]),
        (["embed", "runs/a"], ["vislang embed needs", "SOURCE", "--out"]),
        (["report", "--out", "a"], ["vislang report needs RUN"]),
    ],
)
def test_errors_name_what_is_wrong_and_what_is_near(arguments, parts, capsys):
    message = error_of(capsys, *arguments)
    for part in parts:
        assert part in message, message
    assert message.count("\n") == 1, "one line"


def test_a_user_error_shows_no_traceback_unless_asked(monkeypatch):
    quiet = run("train", "clpi", "--out", "a")
    assert quiet.returncode == 2
    assert "Traceback" not in quiet.stderr
    loud = run("train", "clpi", "--out", "a", env=_with(VISLANG_TRACEBACK="1"))
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def _with(**more: str) -> dict[str, str]:
    import os

    return os.environ | more


def _recording(seen: dict):
    def record(recipe: str, *, out: Path | None = None, config: TrainConfig) -> None:
        """Record.

        Args:
            recipe: a name.
            out: a folder.
            config: the rest.
        """
        seen.update(recipe=recipe, out=out, config=config)

    return record


def parsed(*arguments: str) -> TrainConfig:
    """The config that a `vislang train` command line asks for."""
    values = read_arguments(_recording({}), arguments, "vislang train")
    assert values is not None
    return values["config"]


def test_flags_change_the_recipe_and_nothing_else():
    plain, changed = parsed("clip"), parsed("clip", "--optim.lr", "1e-4", "--data.train=photos/")
    assert (changed.optim.lr, changed.data.train) == (1e-4, "photos/")
    from dataclasses import replace

    back = replace(changed, optim=replace(changed.optim, lr=plain.optim.lr),
                   data=replace(changed.data, train=plain.data.train))  # fmt: skip
    assert back == plain


def test_values_of_every_kind():
    config = parsed(
        "clip", "--run.compile", "true", "--optim.betas", "[0.5, 0.6]",
        "--run.evaluations", "zeroshot,knn", "--data.augment_options", "{scale: [0.5, 1.0]}",
        "--objective.options.temperature", "0.05", "--data.train_options.columns.image", "path",
        "--model.text.options", '{"depth": 3, "name": "x"}', "--data.valid=",
    )  # fmt: skip
    assert config.run.compile is True
    assert config.optim.betas == (0.5, 0.6)
    assert config.run.evaluations == ("zeroshot", "knn")
    assert config.data.augment_options == {"scale": [0.5, 1.0]}
    assert config.objective.options == {"temperature": 0.05}
    assert config.data.train_options == {"columns": {"image": "path"}}
    assert config.model.text.options == {"depth": 3, "name": "x"}
    assert parsed("clip", "--run.evaluations=zeroshot").run.evaluations == ("zeroshot",)
    assert parsed("clip", "--run.evaluations", "[]").run.evaluations == ()


def test_an_option_joins_those_of_the_recipe_and_another_part_drops_them():
    recipe = parsed("demo").model.image
    assert recipe.options, "the demo recipe sizes its towers"
    joined = parsed("demo", "--model.image.options.depth", "1").model.image
    assert joined.options == recipe.options | {"depth": 1}
    other = parsed("demo", "--model.image.name", "timm", "--model.image.options.name", "resnet18")
    assert other.model.image.options == {"name": "resnet18"}
    assert other.model.text == parsed("demo").model.text


def test_other_data_drops_the_valid_part_of_the_recipes_own(tmp_path):
    from vislang.config import with_changes, write_config

    other = parsed("demo", "--data.train", "photos/").data
    assert (other.train_options, other.valid, other.valid_options) == ({}, "", {})
    named = parsed("demo", "--data.train", "photos/", "--data.valid", "more/").data
    assert (named.valid, named.valid_options) == ("more/", {})
    config = with_changes(parsed("clip"), {"data.train": "a/", "data.valid": "b/"})
    write_config(tmp_path / "c.yaml", config)
    assert parsed(str(tmp_path / "c.yaml"), "--data.train", "c/").data.valid == "b/"


def test_keys_of_an_option_that_was_empty():
    def command(*, options: dict[str, Any] | None = None) -> None: ...

    def read(*arguments: str) -> Any:
        return read_arguments(command, arguments, "x")["options"]  # type: ignore[index]

    assert read("--options.knn.k", "3", "--options.a", "[1, x]") == {"knn": {"k": 3}, "a": [1, "x"]}
    assert read("--options", "{knn: {k: 3}, prompts.txt: 1}") == {"knn": {"k": 3}, "prompts.txt": 1}
    assert read() == {}


def test_a_config_file_and_a_run_folder_stand_for_a_recipe(tmp_path):
    from vislang.config import write_config

    config = parsed("clip", "--optim.lr", "0.25", "--model.image.options.depth", "2")
    write_config(tmp_path / "run" / "config.yaml", config)
    assert parsed(str(tmp_path / "run" / "config.yaml")) == config
    assert parsed(str(tmp_path / "run")) == config
    assert parsed(str(tmp_path / "run"), "--optim.lr", "1").optim.lr == 1


def test_a_field_that_a_config_file_misspells_is_named(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("optim: {lrr: 1}\n")
    message = error_of(capsys, "train", str(tmp_path / "a.yaml"), "--out", str(tmp_path / "run"))
    assert "no field 'lrr'. Did you mean 'lr'?" in message
    assert not (tmp_path / "run").exists()


def test_ones_own_recipe_by_its_import_path():
    assert parsed("vislang.recipes.clip:clip") == parsed("clip")
    with pytest.raises(UserError, match="must return a TrainConfig, got OrderedDict"):
        parsed("collections:OrderedDict")


def test_list_shows_every_kind_and_every_entry(capsys):
    from vislang.cli.list import KINDS, registry

    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(KINDS)
    for kind, place in KINDS.items():
        if kind != "domains":  # records, not a literal table; tests/test_domains.py has them
            assert list(found[kind]) == list(registry(*place)), kind
        assert found[kind], f"no {kind}"
        assert all(found[kind].values()), f"a line is missing: {found[kind]}"
    assert cli.main(["list", "recipe"]) == 0
    assert "clip" in capsys.readouterr().out


def test_the_reader_of_a_pipe_may_leave():
    done = subprocess.run(
        f"{sys.executable} -m vislang list | head -n 1", shell=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("recipes\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_help_and_list_answer_at_once(arguments):
    """Under 0.4 s of processor time; benchmarks/startup.py takes the wall clock, undisturbed."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_any_command_without_a_traceback(number, code, child_environment):
    program = (
        "import os, sys, vislang.cli.main as m\n"
        f"m.run_command = lambda argv: os.kill(os.getpid(), {int(number)})\n"
        "sys.exit(m.main(['embed']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment,
        capture_output=True,
        text=True,
        # Started in the background of a shell, these tests and their children would ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_commands_are_functions_with_typed_arguments():
    for name in COMMANDS:
        signature = inspect.signature(lookup("command", cli.COMMANDS, name))
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)


if __name__ == "__main__":
    FLAGS.parent.mkdir(exist_ok=True)
    FLAGS.write_text("\n".join(flag_lines()) + "\n")
    print(f"{len(flag_lines())} flags in {FLAGS}")
