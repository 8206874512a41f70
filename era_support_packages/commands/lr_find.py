"""lr-find: the learning-rate range test of a run, without training."""

from typing import Any

from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.commands.train import add_configuration, checked
from era_support_packages.system.command_values import CommandParser


def add_options(parser: CommandParser) -> None:
    """Those of train."""
    parser.usage = f"{parser.prog} [--preset NAME] [--dataset NAME] [--OPTION VALUE ...]"
    add_configuration(parser)
    add_output_options(parser, "the suggestions")
    parser.add_argument("--figures", action="store_true", help="draw the curve into the run's folder")


def run(options: dict[str, Any]) -> int:
    """Make the test in the run's folder, where training finds it again."""
    values = checked(options)
    from era_support_packages.runs.preparation import prepare
    from era_support_packages.runs.recording import choose_learning_rate

    report = reporter(options)
    preset, data_root, resume = (values.pop(name) for name in ("preset", "data_root", "resume"))
    prepared = prepare(preset, data_root=data_root, resume=resume, report=report, **values)
    prepared, result, sentence = choose_learning_rate(prepared.build_model(report, to_show=False), prepared)
    if options["figures"]:
        from era_support_packages import plots

        title = f"Learning-rate range test: {prepared.train.title}, run {prepared.run.name}"
        file = plots.save(plots.range_test(result, title, prepared.config.max_lr), prepared.run.folder / "lr_finder.png")
        report(f"Figure {file}")
    found: dict[str, Any] = {"run": prepared.run.name, "folder": str(prepared.run.folder)}
    found |= {"max_lr": prepared.config.max_lr, "suggestions": result.suggestions, "sentence": sentence}
    print_result(found, options, lambda: sentence)
    return 0
