"""data: what a data set or a folder of images holds."""

from typing import Any

from era_support_packages.commands.output import add_output_options, print_result
from era_support_packages.system.command_values import CommandParser


def add_options(parser: CommandParser) -> None:
    """Which data."""
    parser.add_argument("dataset", metavar="DATA", help="auto, cifar10, cifar100, digits, or a folder of images")
    parser.add_argument("--data-root", metavar="FOLDER", help="folder that holds or receives the data set")
    parser.add_argument("--skip-broken", action="store_true", help="leave damaged image files out instead of naming them")
    add_output_options(parser, "counts and statistics")


def run(options: dict[str, Any]) -> int:
    """Load it, which names what is damaged or left out, and count."""
    import contextlib
    import sys

    from era_support_packages.datasets import loading
    from era_support_packages.datasets.image_dataset import data_fingerprint, summary

    loading.check(options["dataset"], options["data_root"])
    with contextlib.redirect_stdout(sys.stderr if options["json"] else sys.stdout):
        train, test = loading.load(options["dataset"], options["data_root"], options["skip_broken"])
    found = {
        "name": train.name,
        "classes": list(train.classes),
        "images": {split.split: len(split) for split in (train, test)},
        "by_class": {
            split.split: {name: int((split.labels == label).sum()) for label, name in enumerate(split.classes)}
            for split in (train, test)
        },
        "mean": list(train.mean),
        "std": list(train.std),
        "digest": data_fingerprint(train, test).digest,
    }
    print_result(found, options, lambda: f"{summary(train, test)}\n{train.statistics}")
    return 0
