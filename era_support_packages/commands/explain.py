"""explain: what the network of a run looks at in photos."""

import io
import sys
from pathlib import Path
from typing import Any

from era_support_packages.commands import photos as files
from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.gradcam.method_names import METHOD_NAMES
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.paths import expanded, printable_path


def add_options(parser: CommandParser) -> None:
    """Which network, which photos, which maps."""
    files.add_photo_options(parser, "folder for a panel of each photo and predictions.csv (default: explained)")
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help='target layers ("a+b": one map of both); the last of each resolution by default',
    )
    parser.add_argument("--method", default="gradcam", metavar="NAME", help=f"one of {', '.join(METHOD_NAMES)} (default gradcam)")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="explain this class instead of the predicted one")
    parser.add_argument("--maps", action="store_true", help="also write each photo's maps (layers, px, px) as .npy")
    add_output_options(parser, "the predictions")


def run(options: dict[str, Any]) -> int:
    """Draw; 1 where a photo cannot be read, whose others are explained all the same."""
    if options["method"] not in METHOD_NAMES:
        raise CommandLineError(f"Unknown method {options['method']!r}: {nearest_names(options['method'], METHOD_NAMES)}")
    from era_support_packages.datasets.photos import decoded_photos, named_broken, named_depths, panel_names, photo_files

    found = photo_files(options["photos"])
    out = expanded(options["out"] or "explained")
    names = panel_names(found)
    targets = [out / f"{name}{end}" for name in names for end in (".png", ".npy")[: 1 + options["maps"]]]
    files.check_free([out / "predictions.csv", *targets], options["force"], found)
    import numpy as np

    from era_support_packages import plots
    from era_support_packages.classifier import Classifier
    from era_support_packages.runs.photos import explain_photo, how_sure, kept_temperature

    network = files.network_file(options["network"])
    classifier, temperature = Classifier.load(network), kept_temperature(network)
    wanted = options["class_name"]
    if wanted is not None and wanted not in classifier.classes:
        raise CommandLineError(f"The network knows no class {wanted!r}: {nearest_names(wanted, classifier.classes)}")
    asked: dict[str, Any] = {"target": None if wanted is None else classifier.classes.index(wanted)}
    asked |= {"layers": options["layers"], "method": options["method"], "temperature": temperature}
    report, rows, depths, number = reporter(options), list[dict[str, Any]](), list[int](), 0
    report(how_sure(temperature))
    for part in decoded_photos(found, classifier.bits):
        depths += [photo.bits for photo in part]
        for photo in part:
            name, number = names[number], number + 1
            row: dict[str, Any] = {"file": printable_path(photo.file), "top": [], "problem": photo.problem, "panel": ""}
            rows.append(row)
            if photo.pixels is None:
                continue
            seen = explain_photo(classifier, photo.pixels, **asked)
            title = f"{printable_path(Path(photo.file.name))}: {options['method']}, {options['network']}"
            figure = plots.photo_panel(
                photo.pixels, seen.explanation, seen.top, title, fit=classifier.fit, temperature=temperature
            )
            with files.folder_for(out):
                saved = plots.save(figure, out / f"{name}.png")
                if options["maps"]:
                    np.save(content := io.BytesIO(), seen.explanation.maps[0, 0])
                    write_atomically(out / f"{name}.npy", content.getbuffer())
            report(f"{saved}: {', '.join(f'{label} {100 * sure:.1f} %' for label, sure in seen.top)}")
            row |= {"top": seen.top, "temperature": temperature, "panel": f"{name}.png"}
    if said := named_depths(depths, classifier.bits):
        report(said)
    with files.folder_for(out):
        files.write_table(out / "predictions.csv", rows, len(classifier.classes))
    broken = named_broken([(row["file"], row["problem"]) for row in rows if row["problem"]], len(rows))
    done = sum(not row["problem"] for row in rows)
    print_result(rows, options, lambda: f"{done} panel{'s' * (done != 1)} and predictions.csv in {out}.")
    if broken:
        print(broken, file=sys.stderr)
    return int(bool(broken))
