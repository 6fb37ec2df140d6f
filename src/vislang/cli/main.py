"""The command `vislang`: finds the command, reads its arguments, turns failures into one message.

Nothing heavy is imported here, so that `vislang --help` answers at once: each command is a
function in a file of its own, imported when it is called for, and that function imports torch.

Exit codes: 0 done, 1 a defect of vislang (with a traceback), 2 something the user can mend,
130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from vislang.errors import UserError
from vislang.lookup import lookup, nearest, one_line

# A name of two words is a subcommand, as in `vislang curate neighbours`.
COMMANDS: dict[str, str] = {
    "demo": "vislang.cli.demo:demo",
    "train": "vislang.cli.train:train",
    "sweep": "vislang.cli.sweep:sweep",
    "embed": "vislang.cli.embed:embed",
    "curate words": "vislang.cli.curate.words:words",
    "curate images": "vislang.cli.curate.images:images",
    "curate neighbours": "vislang.cli.curate.neighbours:neighbours",
    "curate dictionary": "vislang.cli.curate.dictionary:dictionary",
    "curate shards": "vislang.cli.curate.shards:shards",
    "curate classifier": "vislang.cli.curate.classifier:classifier",
    "curate score": "vislang.cli.curate.score:score",
    "curate sample": "vislang.cli.curate.sample:sample",
    "curate fetch": "vislang.cli.curate.fetch:fetch",
    "curate validate": "vislang.cli.curate.validate:validate",
    "curate inspect": "vislang.cli.curate.inspect:inspect",
    "curate collage": "vislang.cli.curate.collage:collage",
    "curate tokenizer": "vislang.cli.curate.tokenizer:tokenizer",
    "evaluate": "vislang.cli.evaluate:evaluate",
    "contrast": "vislang.cli.contrast:contrast",
    "data elevater": "vislang.cli.data:elevater",
    "submit elevater": "vislang.cli.submit:elevater",
    "probe": "vislang.cli.probe:probe",
    "cosine": "vislang.cli.cosine:cosine",
    "localize": "vislang.cli.localize:localize",
    "domains show": "vislang.cli.domains:show",
    "report": "vislang.cli.report:report",
    "list": "vislang.cli.list:list_parts",
    "export": "vislang.cli.export:export",
    "interpolate": "vislang.cli.interpolate:interpolate",
}

EXAMPLES = """\
examples:
  vislang demo                                    train, evaluate, report on real digits
  vislang train clip --data.train photos/ --out runs/a
  vislang evaluate runs/a --source photos-test/ --suite zeroshot,retrieval
  vislang report runs/a runs/b --out compare.html
  vislang list objectives

`vislang COMMAND --help` shows the flags of a command.
VISLANG_TRACEBACK=1 shows where an error arose."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the returned number is the exit code of the process."""
    argv = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = run_command(argv)
        _leave_group()
        return code
    except UserError as error:
        if os.environ.get("VISLANG_TRACEBACK"):
            raise
        print(f"{_process()}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_process()}stopped by Ctrl-C", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `vislang list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run_command(argv: Sequence[str]) -> int:
    """Find the command that `argv` begins with and call it with the rest."""
    name, rest = split_command(argv or ["--help"])
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        from vislang import __version__

        print(f"vislang {__version__}")
        return 0
    group = {key: COMMANDS[key] for key in COMMANDS if key.startswith(f"{name} ")}
    if group and (not rest or rest[0] in ("-h", "--help")):
        print(f"usage: vislang {name} SUBCOMMAND ...\n\nsubcommands:\n" + "\n".join(_lines(group)))
        return 0
    if name not in COMMANDS:
        if group:
            raise UserError(
                f"vislang {name} has no subcommand {rest[0]!r}."
                f"{nearest(f'{name} {rest[0]}', group)} Known: {', '.join(group)}."
            )
        what = "flag" if name.startswith("-") else "command"
        raise UserError(
            f"There is no {what} {name!r}.{nearest(name, COMMANDS)}"
            f" Known commands: {', '.join(COMMANDS)}. See `vislang --help`."
        )
    command = lookup("command", COMMANDS, name)
    if name == "list":  # reads its own arguments: jsonargparse alone takes 0.3 s to import
        return command(rest) or 0
    from vislang.cli.arguments import read_arguments

    arguments = read_arguments(command, rest, f"vislang {name}")
    if arguments is None:  # --help was shown
        return 0
    return command(**arguments) or 0


def split_command(argv: Sequence[str]) -> tuple[str, list[str]]:
    """(name of the command, its arguments); a name may have two words.

    >>> split_command(["curate", "neighbours", "photos/"])
    ('curate neighbours', ['photos/'])
    """
    both = " ".join(argv[:2])
    return (both, list(argv[2:])) if both in COMMANDS else (argv[0], list(argv[1:]))


def _lines(table: dict[str, str]) -> list[str]:
    width = max(map(len, table))
    return [f"  {name:<{width + 2}}{one_line(table, name)}" for name in table]


def usage() -> str:
    """The text of `vislang --help`; one line a command, from the commands' docstrings."""
    from vislang import __doc__ as about

    lines = _lines(COMMANDS)
    first = (about or "").strip().split("\n")[0]
    return "\n".join(
        ["usage: vislang COMMAND ...", "", first, "", "commands:", *lines, "", EXAMPLES]
    )


def _terminate(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends the process in order: temporary files are removed, children are stopped."""
    raise SystemExit(128 + signum)


def _leave_group() -> None:
    """Leave torchrun's group, if this process joined it.

    Threads of the group that still hold tensors when the interpreter ends abort the process
    (pytorch pull request 179291).  After a failure they are left alone: leaving may wait for
    processes that no longer answer, and torchrun ends all of them.
    """
    if "torch.distributed" in sys.modules:
        from vislang.devices import stop_processes

        stop_processes()


def _process() -> str:
    """Which of several torchrun processes is speaking."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"[process {os.environ.get('RANK', '?')}] " if several else ""


if __name__ == "__main__":
    sys.exit(main())
