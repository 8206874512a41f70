"""The command line: the notebook's run without a notebook.

python -m era_support_packages --preset cpu --dataset data/cifar10-jpeg --seed 1
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook.parameters import ParameterError, Parameters
from era_support_packages.system.command_values import read_value, shield_negative_numbers
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.presets import PRESETS


def build_parser() -> argparse.ArgumentParser:
    """One option for each parameter of the configuration; values are read as JSON where they can be, else as text."""
    parser = argparse.ArgumentParser(
        prog="python -m era_support_packages", allow_abbrev=False, description=__doc__.splitlines()[0]
    )
    parser.add_argument("--preset", default="auto", help=f"auto, {', '.join(PRESETS)} (default: auto)")
    parser.add_argument("--data-root", help="folder that holds or receives the data set")
    parser.add_argument("--no-resume", dest="resume", action="store_false", help="train in a new folder")
    for field in dataclasses.fields(TrainingConfig):
        if field.name != "preset_name":
            kind = str if field.type in (str, str | None) else read_value  # a run may be called "2024"
            parser.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, metavar="VALUE", type=kind)
    return parser


def run(preset: str, data_root: str | None, resume: bool, overrides: dict[str, Any]) -> None:
    """Train as the values say and write the run's folder; go on with a run of the same values that was stopped."""
    from era_support_packages.runs.preparation import prepare
    from era_support_packages.runs.recording import train_prepared

    def report(line: str) -> None:
        print(line, flush=True)

    prepared = prepare(preset, data_root=data_root, resume=resume, report=report, **overrides)
    _, history = train_prepared(prepared, report)
    report(f"{history.predictions.accuracy:.2f} % of the test split; written to {prepared.run.folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 where training failed, 2 for a bad value, 130 or 143 when stopped."""
    given = shield_negative_numbers(sys.argv[1:] if arguments is None else arguments)
    options = vars(build_parser().parse_args(given))
    try:
        Parameters({name: value for name, value in options.items() if value is not None}).check()
    except ParameterError as error:  # before PyTorch is imported
        print(f"error: {error}", file=sys.stderr)
        return 2
    from era_support_packages.runs.recording import RunStopped
    from era_support_packages.training.failures import DeviceFailedError, OutOfMemoryError, TrainingDivergedError

    preset, data_root, resume = (options.pop(name) for name in ("preset", "data_root", "resume"))
    try:
        run(preset, data_root, resume, options)
    except (ValueError, FileNotFoundError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (TrainingDivergedError, OutOfMemoryError, DeviceFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RunStopped as stop:
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
