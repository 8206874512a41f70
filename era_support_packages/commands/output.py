"""What a command says: lines for a person, or one JSON value for a program."""

import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook.parameters import as_typed
from era_support_packages.notebook.wording import Place
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.plain_error import PlainError

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but tab and line end; names that are no UTF-8
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAILED = (*_FULL, errno.EIO, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def add_output_options(parser: CommandParser, record: str) -> None:
    """--json and --quiet; `record` says what the JSON value is."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help=f"print {record} as JSON and everything else to stderr")
    group.add_argument("--quiet", action="store_true", help="print nothing but the result")


def add_run_options(parser: CommandParser, what: str, data: bool = True, **names: Any) -> None:
    """Which runs, by name or folder, and where they and their data lie; `names`: as for argparse."""
    parser.add_argument("names", metavar="RUN", help=what, **{"nargs": "+", **names})
    parser.add_argument("--output-dir", default="runs", metavar="FOLDER", help="folder that holds the runs (default runs)")
    if data:
        parser.add_argument("--data-root", metavar="FOLDER", help="folder that holds the data set")


def reporter(options: dict[str, Any]) -> Callable[[str], None]:
    """Where a command reports what it does, after the two options."""
    stream = sys.stderr if options["json"] else sys.stdout

    def report(line: str) -> None:
        if not options["quiet"]:
            said = line if "\n" in line else as_typed(line, "options")  # tables name values as config.json does
            print(printable(said), file=stream, flush=True)

    return report


class _Aside(io.TextIOBase):
    """In place of stdout while a command works: what others print there goes elsewhere, or nowhere."""

    def __init__(self, results: TextIO, elsewhere: TextIO | None) -> None:
        self.results, self.elsewhere = results, elsewhere

    def write(self, text: str) -> int:
        return len(text) if self.elsewhere is None else self.elsewhere.write(text)

    def flush(self) -> None:
        self.results.flush()

    def close(self) -> None:
        """Nothing. Python closes what it throws away, and that would flush: into a pipe, perhaps, that nobody reads any more."""


@contextlib.contextmanager
def aside(options: dict[str, Any]) -> Iterator[None]:
    """While it lasts, stdout belongs to the result alone where --json or --quiet asks for that: print with `results`."""
    quiet = options.get("quiet", False)
    if not quiet and not options.get("json", False):
        yield
        return
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # this process is the command: no bar of any library; tqdm reads it as it is imported
    with contextlib.redirect_stdout(_Aside(sys.stdout, None if quiet else sys.stderr)):
        yield


def results() -> TextIO:
    """Where the result of a command is printed."""
    return getattr(sys.stdout, "results", sys.stdout)


def problem_of(error: BaseException) -> tuple[str, int] | None:
    """The sentence for an error that is a person's to mend, and its exit code; None for any other."""
    problem = str(error)
    place: Place = getattr(error, "place", "options")  # where the parameters that it names are typed
    if isinstance(error, DatasetError | ValueError | OSError):
        if isinstance(error, OSError) and error.errno in _FULL:
            where = f"{error.filename} cannot be written" if error.filename else "A file cannot be written"
            problem = f"{where} ({error.strerror}): make room there, or give another place."
        elif isinstance(error, OSError) and error.filename:  # of the system, in its words
            problem = f"{error.filename} cannot be used ({error.strerror}): give another place."
        return printable(as_typed(problem, place)), 1 if _of_the_machine(error) else 2
    return (printable(as_typed(problem, place)), 1) if isinstance(error, PlainError) else None


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether the machine failed, and no value is to blame; also behind an error that says it in other words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FAILED:
            return True
        error = error.__cause__ or error.__context__
    return False


def print_result(value: Any, options: dict[str, Any], text: Callable[[], str]) -> None:
    """The result: `value` as JSON where that was asked for, else the text."""
    print(json.dumps(value, indent=2) if options["json"] else printable(text()), file=results())


def printable(text: str) -> str:
    """A text with what would steer the terminal written out, as in the name of a folder: \\x1b for an escape."""
    return _STEERING.sub(lambda found: ascii(found.group())[1:-1], text)
