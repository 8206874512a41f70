"""export: the network of a run as a file for other programs, or a card that says what it is."""

from typing import Any

from era_support_packages.commands.output import add_output_options, add_run_options, print_result
from era_support_packages.commands.photos import check_free, folder_for
from era_support_packages.runs.export_formats import FORMATS
from era_support_packages.runs.listing import find_runs
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.paths import expanded

CARD = "card"


def add_options(parser: CommandParser) -> None:
    """Which run, in which form, into which file."""
    add_run_options(parser, "a run, by name or folder", nargs=1)
    forms = "onnx, torch (a program of torch.export), safetensors (weights alone), or card (a model card to read)"
    parser.add_argument("--to", required=True, choices=(*FORMATS, CARD), help=forms)
    out = "the file (default: network.onnx or the like in the run's folder; README.md there for a card)"
    parser.add_argument("--out", metavar="FILE", help=out)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    add_output_options(parser, "the file's path")


def run(options: dict[str, Any]) -> int:
    """Write the file."""
    to, (folder,) = options["to"], find_runs(options["names"], options["output_dir"])
    suffix = ".md" if to == CARD else FORMATS[to].suffix
    file = expanded(options["out"]) if options["out"] else folder / ("README.md" if to == CARD else f"network{suffix}")
    if file.suffix.lower() != suffix:
        raise CommandLineError(f"{file} is no name for this format: give one that ends in {suffix}.")
    if to != CARD and (lacking := FORMATS[to].missing):
        raise CommandLineError(f"--to {to} {lacking}")
    check_free([file], options["force"], give="file with --out")
    if to == CARD:
        from era_support_packages.runs.card import model_card
        from era_support_packages.runs.exporting import keep

        text = model_card(folder, file, options["data_root"])
        with folder_for(file.parent):
            keep(file, text.encode())
    else:
        from era_support_packages.runs.exporting import export

        export(folder, to, file, force=True)
    print_result({"file": str(file), "to": to}, options, lambda: f"{file} ({file.stat().st_size / 2**20:.1f} MiB)")
    return 0
