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
    from era_support_packages.datasets.sizing import holding
    from era_support_packages.runs.data_sets import fitting_for
    from era_support_packages.runs.starting import data_asked

    loading.check(options["dataset"], options["data_root"])
    folder = loading.folder_of(options["dataset"], options["data_root"])
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
    lines = [summary(train, test), train.statistics]
    if folder is not None:
        asked = data_asked({"dataset": options["dataset"]}, "auto", options["data_root"])
        fitting, said = fitting_for(asked, options["data_root"], resume=False)
        size = fitting.size
        held = holding(len(train) + len(test), size)
        lines += ["", f"In training: {said or f'image_size is {size} px.'}", str(held)]
        found["training"] = {"image_size": size, "streamed": held.streamed, "decoded_bytes": held.needed, "free_bytes": held.free}
    print_result(found, options, lambda: "\n".join(lines))
    return 0
