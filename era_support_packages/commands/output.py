"""What a command says: lines for a person, or one JSON value for a program."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook.parameters import as_typed
from era_support_packages.notebook.wording import Place
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.plain_error import PlainError


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
    if options["quiet"]:
        os.environ["TQDM_DISABLE"] = "1"  # this process is the command: no bar of any library

    def report(line: str) -> None:
        if not options["quiet"]:
            said = line if "\n" in line else as_typed(line, "options")  # tables name values as config.json does
            print(said, file=stream, flush=True)

    return report


def problem_of(error: BaseException) -> tuple[str, int] | None:
    """The sentence for an error that is a person's to mend, and its exit code; None for any other."""
    problem = str(error)
    place: Place = getattr(error, "place", "options")  # where the parameters that it names are typed
    if isinstance(error, DatasetError | ValueError | OSError):
        if isinstance(error, OSError) and error.filename:  # of the system, in its words
            problem = f"{error.filename} cannot be used ({error.strerror}): give another place."
        return as_typed(problem, place), 2
    return (as_typed(problem, place), 1) if isinstance(error, PlainError) else None


def print_result(value: Any, options: dict[str, Any], text: Callable[[], str]) -> None:
    """The result: `value` as JSON where that was asked for, else the text."""
    print(json.dumps(value, indent=2) if options["json"] else text())
