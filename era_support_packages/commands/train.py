"""train: the notebook's run without a notebook."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.notebook.parameters import Beside, Knobs, Parameters
from era_support_packages.system.command_values import CommandParser, read_value
from era_support_packages.system.settings import fields, is_text_field, option_help, setting_of, takes
from era_support_packages.system.torchrun import started_by_torchrun
from era_support_packages.training.config import TrainingConfig

if TYPE_CHECKING:
    from era_support_packages.runs.preparation import PreparedRun
    from era_support_packages.training.history import Trained

_NOTE = (
    "A preset sets the values that make it; every other value is the default below. "
    'Values are written as in Python or as JSON: 0.1, true, "[[16, 0.5], [32, 0.5]]".'
)
_KINDS = {bool: "true|false", int: "N", float: "X", str: "NAME"}


def add_options(parser: CommandParser) -> None:
    """One option for each parameter of the configuration, and where its data lies."""
    parser.usage = f"{parser.prog} [--preset NAME] [--dataset NAME] [--OPTION VALUE ...]"
    parser.description = f"{parser.description} {_NOTE}"
    add_configuration(parser)
    group = parser.add_argument_group("several devices")
    group.add_argument("--devices", metavar="N|all", type=read_value, default=1, help=option_help(fields(Beside)["devices"]))
    add_output_options(parser, "the run's record")
    parser.add_argument("--figures", action="store_true", help="draw the figures of the run into its folder")


def add_configuration(parser: CommandParser, without: Collection[str] = ()) -> None:
    """Preset, data and every field of the configuration; values are read as JSON where they can be, else as text.

    without: names that the command has no option for.
    """
    own = fields(Knobs)
    group = parser.add_argument_group("recipe and folders")
    group.add_argument("--preset", default="auto", metavar="NAME", help=_escaped(option_help(own["preset"])))
    group.add_argument("--data-root", metavar="FOLDER", help=_escaped(option_help(own["data_root"])))
    if "resume" not in without:
        group.add_argument("--no-resume", dest="resume", action="store_false", help="train in a new folder")
    for name, field in fields(TrainingConfig).items():
        if name in without:
            continue
        if title := setting_of(field).group:
            group = parser.add_argument_group(title)
        kind = str if is_text_field(field) else read_value  # a run may be called "2024"
        metavar = next((word for kind, word in _KINDS.items() if takes(field, kind)), "NAME" if kind is str else "LIST")
        help_text = _escaped(option_help(field))
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, type=kind, help=help_text)


def _escaped(text: str) -> str:
    """As argparse wants it."""
    return text.replace("%", "%%")


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The values of the configuration among the options, checked before PyTorch is imported. Raises `ParameterError`."""
    values = {name: value for name, value in options.items() if name not in ("json", "quiet", "figures")}
    Parameters({name: value for name, value in values.items() if value is not None}).check()
    return values


def run(options: dict[str, Any]) -> int:
    """Train as the values say and write the run's folder; go on with a run of the same values that was stopped."""
    values = checked(options)
    if (started := started_by_torchrun()) is not None:
        from era_support_packages.commands.workers import train_with_others

        return train_with_others(started, options, values, _show)
    from era_support_packages.runs.preparation import prepare
    from era_support_packages.runs.recording import train_prepared

    report = reporter(options)
    preset, data_root, resume = (values.pop(name) for name in ("preset", "data_root", "resume"))
    prepared = prepare(preset, data_root=data_root, resume=resume, report=report, **values)
    trained = train_prepared(prepared, report)
    _show(prepared, trained, options, report)
    return 0


def _show(prepared: "PreparedRun", trained: "Trained", options: dict[str, Any], report: Callable[[str], None]) -> None:
    """The figures that were asked for, and the result."""
    if options["figures"]:
        from era_support_packages.commands.figures import draw
        from era_support_packages.runs.tracking import track_figures

        for file in draw(prepared, trained):
            report(f"Figure {file}")
        track_figures(prepared, report)
    accuracy, judged = trained.history.final_predictions.accuracy, trained.history.judged
    folder = prepared.run.folder
    print_result(record(folder), options, lambda: f"{accuracy:.2f} % of the {judged} split; written to {folder}")


def record(folder: Path) -> dict[str, Any]:
    """What a program reads of a finished run: its folder, what came out, and what it was made with."""
    said, config = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("summary.json", "config.json"))
    return {"run": folder.name, "folder": str(folder), **said, "config": config}
