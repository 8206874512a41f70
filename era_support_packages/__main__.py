"""The command line: the notebook's run without a notebook.

python -m era_support_packages --preset cpu --dataset data/cifar10-jpeg --seed 1
"""

import sys
from collections.abc import Sequence
from typing import Any

from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook.parameters import Knobs, ParameterError, Parameters, as_typed
from era_support_packages.system.command_values import CommandLineError, CommandParser, read_value
from era_support_packages.system.settings import fields, is_text_field, option_help, setting_of, takes
from era_support_packages.training.config import TrainingConfig

_USAGE = "python -m era_support_packages [--preset NAME] [--dataset NAME] [--OPTION VALUE ...]"
_NOTE = (
    "A preset sets the values that make it; every other value is the default below. "
    'Values are written as in Python or as JSON: 0.1, true, "[[16, 0.5], [32, 0.5]]".'
)
_KINDS = {bool: "true|false", int: "N", float: "X", str: "NAME"}


def build_parser() -> CommandParser:
    """One option for each parameter of the configuration; values are read as JSON where they can be, else as text."""
    parser = CommandParser(prog="python -m era_support_packages", usage=_USAGE, description=f"{__doc__.splitlines()[0]} {_NOTE}")
    own = fields(Knobs)
    group = parser.add_argument_group("recipe and folders")
    group.add_argument("--preset", default="auto", metavar="NAME", help=_escaped(option_help(own["preset"])))
    group.add_argument("--data-root", metavar="FOLDER", help=_escaped(option_help(own["data_root"])))
    group.add_argument("--no-resume", dest="resume", action="store_false", help="train in a new folder")
    for name, field in fields(TrainingConfig).items():
        if title := setting_of(field).group:
            group = parser.add_argument_group(title)
        kind = str if is_text_field(field) else read_value  # a run may be called "2024"
        metavar = next((word for kind, word in _KINDS.items() if takes(field, kind)), "NAME" if kind is str else "LIST")
        help_text = _escaped(option_help(field))
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, type=kind, help=help_text)
    return parser


def _escaped(text: str) -> str:
    """As argparse wants it."""
    return text.replace("%", "%%")


def run(preset: str, data_root: str | None, resume: bool, overrides: dict[str, Any]) -> None:
    """Train as the values say and write the run's folder; go on with a run of the same values that was stopped."""
    from era_support_packages.runs.preparation import prepare
    from era_support_packages.runs.recording import train_prepared

    def report(line: str) -> None:
        print(line if "\n" in line else as_typed(line, "options"), flush=True)  # tables name values as config.json does

    prepared = prepare(preset, data_root=data_root, resume=resume, report=report, **overrides)
    _, history = train_prepared(prepared, report)
    report(f"{history.final_predictions.accuracy:.2f} % of the test split; written to {prepared.run.folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 where training failed, 2 for a bad value, 130 or 143 when stopped."""
    try:
        options = build_parser().read(sys.argv[1:] if arguments is None else arguments)
        Parameters({name: value for name, value in options.items() if value is not None}).check()
    except (CommandLineError, ParameterError) as error:  # before PyTorch is imported
        print(f"error: {as_typed(str(error), 'options')}", file=sys.stderr)
        return 2
    from era_support_packages.runs.recording import RunStopped
    from era_support_packages.training.failures import DeviceFailedError, OutOfMemoryError, TrainingDivergedError

    preset, data_root, resume = (options.pop(name) for name in ("preset", "data_root", "resume"))
    try:
        run(preset, data_root, resume, options)
    except (ValueError, FileNotFoundError, DatasetError) as error:
        print(f"error: {as_typed(str(error), 'options')}", file=sys.stderr)
        return 2
    except (TrainingDivergedError, OutOfMemoryError, DeviceFailedError) as error:
        print(f"error: {as_typed(str(error), 'options')}", file=sys.stderr)
        return 1
    except RunStopped as stop:
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
