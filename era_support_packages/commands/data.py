"""data: what a data set or a folder of images holds."""

from typing import Any

from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.system.command_values import CommandParser, read_value
from era_support_packages.system.settings import fields, option_help
from era_support_packages.training.config import TrainingConfig


def add_options(parser: CommandParser) -> None:
    """Which data, at which size."""
    parser.add_argument("dataset", metavar="DATA", help="auto, cifar10, cifar100, digits, or a folder of images")
    parser.add_argument("--data-root", metavar="FOLDER", help="folder that holds or receives the data set")
    for name, metavar in (("image_size", "N"), ("fit", "NAME")):
        text = option_help(fields(TrainingConfig)[name]).replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, type=read_value, help=text)
    parser.add_argument("--skip-broken", action="store_true", help="leave damaged image files out instead of naming them")
    add_output_options(parser, "counts and statistics")


def run(options: dict[str, Any]) -> int:
    """Load it as a run would, which names what is damaged or left out and says which size it takes, and count."""
    from era_support_packages.datasets import loading
    from era_support_packages.datasets.image_dataset import DatasetError, data_fingerprint, summary
    from era_support_packages.datasets.sizing import Holding, few_images
    from era_support_packages.runs.data_sets import load_asked
    from era_support_packages.runs.starting import data_asked
    from era_support_packages.system.memory import free_memory

    loading.check(options["dataset"], options["data_root"])
    folder = loading.folder_of(options["dataset"], options["data_root"])
    report, free = reporter(options), free_memory()  # before the images are in it
    try:
        train, test = load_asked(data_asked(options, "auto", options["data_root"]), options["data_root"], report)
    except DatasetError as error:  # the option is a flag here
        raise DatasetError(str(error).replace("set skip_broken=True", "give --skip-broken")) from None
    if few := few_images(train):
        report(few)
    found = {
        "name": train.name,
        "classes": list(train.classes),
        "images": {split.split: len(split) for split in (train, test)},
        "by_class": {
            split.split: {name: int((split.labels == label).sum()) for label, name in enumerate(split.classes)}
            for split in (train, test)
        },
        "image_size": train.images.shape[1],
        "fit": train.fit,
        "mean": list(train.mean),
        "std": list(train.std),
        "digest": data_fingerprint(train, test).digest,
    }
    lines = [summary(train, test), train.statistics]
    if folder is not None:
        count, size = len(train) + len(test), train.image_size
        held = Holding(train.streamed, "auto", count, size, count * size * size * 3, free)
        lines.append(f"In training, {held}")
        found["training"] = {"streamed": held.streamed, "decoded_bytes": held.needed, "free_bytes": held.free}
    print_result(found, options, lambda: "\n".join(lines))
    return 0
