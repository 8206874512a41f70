"""predict: classify photos with the network of a run."""

import sys
from typing import Any

from era_support_packages.commands import photos as files
from era_support_packages.commands.output import add_output_options, print_result, reporter, results
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.paths import expanded, printable_path


def add_options(parser: CommandParser) -> None:
    """Which network, which photos."""
    files.add_photo_options(parser, "also write predictions.csv into this folder")
    add_output_options(parser, "the predictions")


def run(options: dict[str, Any]) -> int:
    """Classify; 1 where a photo cannot be read."""
    from era_support_packages.datasets.photos import decoded_photos, named_broken, named_depths, photo_files

    found = photo_files(options["photos"])
    table = expanded(options["out"]) / "predictions.csv" if options["out"] else None
    if table is not None:
        files.check_free([table], options["force"], found)
    import numpy as np

    from era_support_packages.classifier import Classifier
    from era_support_packages.datasets.fitting import fitted
    from era_support_packages.runs.photos import how_sure, kept_temperature, top_classes

    network = files.network_file(options["network"])
    classifier, temperature = Classifier.load(network), kept_temperature(network)
    report, rows, depths = reporter(options), list[dict[str, Any]](), list[int]()
    report(how_sure(temperature))
    for part in decoded_photos(found, classifier.bits):
        whole = [fitted(photo.pixels, classifier.fitting) for photo in part if photo.pixels is not None]
        predictions = classifier.predict(np.stack(whole)) if whole else None
        logits = iter(predictions.logits if predictions is not None else ())
        depths += [photo.bits for photo in part]
        for photo in part:
            row: dict[str, Any] = {"file": printable_path(photo.file), "top": [], "problem": photo.problem}
            rows.append(row)
            if photo.pixels is None:
                continue
            top = top_classes(next(logits), classifier.classes, temperature)
            row |= {"top": top, "temperature": temperature}
            if not options["json"]:
                print(
                    f"{row['file']}: " + ", ".join(f"{name} {100 * sure:.1f} %" for name, sure in top), file=results(), flush=True
                )
    if said := named_depths(depths, classifier.bits):
        report(said)
    if table is not None:
        with files.folder_for(table.parent):
            files.write_table(table, rows, len(classifier.classes))
        report(f"Written to {table}")
    if options["json"]:
        print_result(rows, options, str)
    if broken := named_broken([(row["file"], row["problem"]) for row in rows if row["problem"]], len(rows)):
        print(broken, file=sys.stderr)
        return 1
    return 0
