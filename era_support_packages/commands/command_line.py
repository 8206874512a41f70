"""From what was typed to an exit code: which sub-command it is, and one sentence for whatever goes wrong."""

import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from era_support_packages import __version__
from era_support_packages.commands.output import aside, problem_of
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.streams import give_streams
from era_support_packages.system.torchrun import started_by_torchrun

PROGRAM = "python -m era_support_packages"
COMMANDS = {  # module of this room, and what the command does
    "train": ("train", "train a network, or go on with a run of the same values that was stopped"),
    "sweep": ("sweep", "try values on images held out, train the best on all images, and test them"),
    "lr-find": ("lr_find", "make the learning-rate range test of a run and say what it suggests"),
    "summary": ("summary", "print the layers of a network"),
    "data": ("data", "say what a data set or a folder of images holds"),
    "predict": ("predict", "classify photos with the network of a run"),
    "explain": ("explain", "draw what the network of a run looks at in photos"),
    "runs": ("runs", "list the runs; rename, delete, prune them; name the best"),
    "compare": ("compare", "hold runs against each other: values, accuracy, curves, images"),
    "export": ("export", "write the network of a run as a file for other programs, or a card on it"),
    "report": ("report", "write one HTML page on a run, or on two, to send to somebody"),
}
EXIT_CODES = (
    "Exit codes: 0 done; 1 it failed, or part of it; 2 a value that cannot be used; 130 stopped by Ctrl-C; 143 stopped by "
    "SIGTERM; 141 nobody reads the output any more."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, as `EXIT_CODES` has them."""
    give_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)
    except BrokenPipeError:
        _forget_stdout()
        return 141
    except OSError as error:  # of the last flush: the disk is full
        _forget_stdout()
        print(f"error: What the command says cannot be written ({error.strerror}): make room there.", file=sys.stderr)
        return 1


def _forget_stdout() -> None:
    """Else Python complains again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(given: list[str]) -> int:
    if given and given[0] in ("-h", "--help"):
        print(overview())
        return 0
    if given and given[0] == "--version":
        print(__version__)
        return 0
    named = bool(given) and not given[0].startswith("-")
    name = given[0] if named else "train"
    started = started_by_torchrun()
    try:
        if name not in COMMANDS:
            raise CommandLineError(f"Unknown command {name!r}: {nearest_names(name, COMMANDS)}")
        if started is not None and name != "train":
            raise CommandLineError(f"{name} runs in one process: start it without torchrun, which is for train alone.")
        options = build_parser(name).read(given[1:] if named else given)
        with aside(options):
            return _module(name).run(options)
    except BrokenPipeError:
        raise
    except Exception as error:
        found = problem_of(error)
        if found is None:
            raise
        problem, code = found
        if started is not None and started.rank:
            time.sleep(10)  # the first process says it, and torchrun ends the others as soon as it sees that one end
        else:
            print(f"error: {problem}", file=sys.stderr)
        return code


def build_parser(name: str = "train") -> CommandParser:
    """The options of a command."""
    purpose = COMMANDS[name][1]
    parser = CommandParser(prog=f"{PROGRAM} {name}", description=f"{purpose[:1].upper()}{purpose[1:]}.", epilog=EXIT_CODES)
    _module(name).add_options(parser)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"era_support_packages.commands.{COMMANDS[name][0]}")


def overview() -> str:
    """The help of the whole."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} [COMMAND] [OPTIONS]", "", "Without a command it is train; COMMAND --help lists its options.", ""]
    lines += [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    lines += ["", "  --version  print the version", "  --help     print this", "", EXIT_CODES]
    return "\n".join(lines)
