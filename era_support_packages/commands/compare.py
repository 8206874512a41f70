"""compare: runs held against each other."""

from typing import Any

from era_support_packages.commands.output import add_output_options, add_run_options, print_result, reporter
from era_support_packages.commands.photos import check_free, folder_for
from era_support_packages.runs.listing import find_runs
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.paths import expanded

_GIVE = "folder with --figures"


def add_options(parser: CommandParser) -> None:
    """Which runs."""
    add_run_options(parser, "two or more names of runs, or their folders")
    parser.add_argument("--figures", metavar="FOLDER", help="draw curves, and the images that two runs judge otherwise, into it")
    parser.add_argument("--force", action="store_true", help="overwrite figures that are there")
    add_output_options(parser, "what differs and what came out")


def run(options: dict[str, Any]) -> int:
    """Compare, and draw where asked to."""
    folders = find_runs(options["names"], options["output_dir"])
    drawn = expanded(options["figures"]) if options["figures"] else None
    if drawn is not None:
        check_free([drawn / "curves.png"], options["force"], give=_GIVE)  # the names of the others are not known yet
    from era_support_packages.runs.comparison import compare

    found = compare(*folders, data_root=options["data_root"])
    report = reporter(options)
    if drawn is not None:
        from era_support_packages import plots
        from era_support_packages.commands.figures import of_comparison

        figures = of_comparison(found)
        check_free([drawn / name for name in figures], options["force"], give=_GIVE)
        with folder_for(drawn):
            for name, figure in figures.items():
                report(f"Figure {plots.save(figure, drawn / name)}")
    print_result(found.to_dict(), options, lambda: str(found))
    return 0
