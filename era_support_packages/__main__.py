"""The command line: the notebook's run without a notebook.

python -m era_support_packages --preset cpu --dataset data/cifar10-jpeg --seed 1
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from era_support_packages.config import PRESETS, TrainingConfig
from era_support_packages.datasets import DatasetError, load


def build_parser() -> argparse.ArgumentParser:
    """One option for each parameter of the configuration; values are read as JSON where they can be, else as text."""
    parser = argparse.ArgumentParser(prog="python -m era_support_packages", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="auto", help=f"auto, {', '.join(PRESETS)} (default: auto)")
    parser.add_argument("--data-root", help="folder that holds or receives the data set")
    for field in dataclasses.fields(TrainingConfig):
        if field.name != "preset_name":
            kind = str if field.type in (str, str | None) else _value  # a run may be called "2024"
            parser.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, metavar="VALUE", type=kind)
    return parser


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run(config: TrainingConfig, data_root: str | None = None) -> None:
    """Train as the configuration says and write the run's folder."""
    from era_support_packages import training
    from era_support_packages.lr_finder import choose_max_lr, range_test
    from era_support_packages.runs import Run, train_and_record

    train, test = load(config.dataset, data_root)
    config = training.resolve(config, train)
    model = training.build_model(config, len(train.classes), train)
    batches = 0
    if config.max_lr == "auto":
        result = range_test(model, train, len(test), config)
        batches = len(result.losses)
        config, sentence = choose_max_lr(config, result)
        print(sentence)
    folder = Run.create(config, train.name)
    print(f"Run {folder.folder}\n{config}", flush=True)
    try:
        history = train_and_record(model, train, test, config, folder, batches, report=lambda line: print(line, flush=True))
    except training.TrainingDivergedError as error:
        raise ValueError(str(error)) from error
    print(f"{history.predictions.accuracy:.2f} % of the test split; written to {folder.folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for a bad value."""
    options = vars(build_parser().parse_args(arguments))
    preset, data_root = options.pop("preset"), options.pop("data_root")
    try:
        run(TrainingConfig.preset(preset, **options), data_root)
    except (ValueError, FileNotFoundError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
