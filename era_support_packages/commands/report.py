"""report: one file that tells a colleague what a run is worth."""

from typing import Any

from era_support_packages.commands.output import add_output_options, add_run_options, print_result
from era_support_packages.commands.photos import check_free, folder_for
from era_support_packages.runs.listing import find_runs
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.paths import expanded


def add_options(parser: CommandParser) -> None:
    """Which run, against which other, into which file."""
    add_run_options(parser, "a run, and perhaps another to hold it against")
    parser.add_argument("--out", metavar="FILE", help="the file (default: report.html in the run's folder)")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    add_output_options(parser, "the file's path")


def run(options: dict[str, Any]) -> int:
    """Write the page."""
    if len(options["names"]) > 2:
        raise CommandLineError(f"{len(options['names'])} runs are given: report takes one, and perhaps another beside it.")
    folders = find_runs(options["names"], options["output_dir"])
    file = expanded(options["out"]) if options["out"] else folders[0] / "report.html"
    if file.suffix.lower() != ".html":
        raise CommandLineError(f"{file} is no name for a page: give one that ends in .html.")
    check_free([file], options["force"], give="file with --out")
    from era_support_packages.commands.report_page import page_of
    from era_support_packages.system.atomic_file import write_atomically

    page = page_of(folders[0], folders[1] if len(folders) > 1 else None, options["data_root"])
    with folder_for(file.parent):
        write_atomically(file, page.encode())
    print_result({"file": str(file)}, options, lambda: f"{file} ({file.stat().st_size / 2**20:.1f} MiB)")
    return 0
