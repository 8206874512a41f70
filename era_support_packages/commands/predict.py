"""predict: classify photos with the network of a run."""

import sys
from typing import Any

from era_support_packages.commands import photos as files
from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.paths import expanded


def add_options(parser: CommandParser) -> None:
    """Which network, which photos."""
    files.add_photo_options(parser, "also write predictions.csv into this folder")
    add_output_options(parser, "the predictions")


def run(options: dict[str, Any]) -> int:
    """Classify; 1 where a photo cannot be read."""
    found = files.image_files(options["photos"])
    table = expanded(options["out"]) / "predictions.csv" if options["out"] else None
    if table is not None:
        files.check_free([table], options["force"], found)
    import numpy as np

    from era_support_packages.classifier import Classifier
    from era_support_packages.datasets.fitting import fitted

    classifier = Classifier.load(files.network_file(options["network"]))
    report, rows = reporter(options), list[dict[str, Any]]()
    for part in files.decoded(found, classifier.bits):
        whole = [fitted(photo.pixels, classifier.fitting) for photo in part if photo.pixels is not None]
        said = classifier.predict(np.stack(whole)) if whole else None
        tops = iter(said.probabilities if said is not None else ())
        for photo in part:
            top = [] if photo.pixels is None else files.top_classes(next(tops), classifier.classes)
            rows.append({"file": files.shown(photo.file), "top": top, "problem": photo.problem})
            if top and not options["json"]:
                print(f"{files.shown(photo.file)}: " + ", ".join(f"{name} {100 * sure:.1f} %" for name, sure in top), flush=True)
    if table is not None:
        with files.folder_for(table.parent):
            files.write_table(table, rows, len(classifier.classes))
        report(f"Written to {table}")
    if options["json"]:
        print_result(rows, options, str)
    if broken := files.named_broken(rows):
        print(broken, file=sys.stderr)
        return 1
    return 0
