"""sweep: many runs by one line, a choice on images held out, and a test of what was chosen."""

from typing import Any

from era_support_packages.commands.output import add_output_options, print_result, reporter
from era_support_packages.commands.train import add_configuration
from era_support_packages.notebook.parameters import Parameters
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_values import SweepError, read_seeds, read_space
from era_support_packages.system.command_values import CommandParser, read_value
from era_support_packages.system.settings import fields, is_number
from era_support_packages.training.config import TrainingConfig

VALIDATION = 0.1
MOST_JOBS = 64
_USAGE = "{0} -p NAME VALUES [-p NAME VALUES ...] [--seeds N,N,...] [--search N] [--jobs N|all] [--OPTION VALUE ...]"
_NOTE = (
    "Each combination of the values is trained with each seed and judged on training images held out (--validation). The best is "
    "trained again on all training images, and only that is tested. The other options are the same for all trials. What is "
    "finished is never trained again: after a stop, give the same command."
)
_WITHOUT = ("resume", "seed", "final_test", "run_name")  # a sweep has its own, or none


def add_options(parser: CommandParser) -> None:
    """What is varied, and the options of `train`."""
    parser.usage = _USAGE.format(parser.prog)
    parser.description = f"{parser.description} {_NOTE}"
    group = parser.add_argument_group("what is varied")
    group.add_argument(
        "-p",
        dest="space",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUES"),
        help="a parameter and its values: max_lr 0.05,0.1 or, where a value has commas itself, a JSON list of values: "
        'resolutions "[[[32, 1.0]], [[16, 0.5], [32, 0.5]]]"; for a search also a range: max_lr 0.01..1:log, batch_size 32..256',
    )
    group.add_argument("--seeds", default="0", metavar="N,N", help="seeds that each combination is trained with (default 0)")
    group.add_argument(
        "--search",
        metavar="N",
        type=read_value,
        help="let Optuna choose N combinations, and give up those that fall behind, instead of trying all",
    )
    group.add_argument(
        "--jobs",
        default=1,
        metavar="N|all",
        type=read_value,
        help="train N trials at once, each in a process with a GPU or with its share of the threads; all is one for each GPU, or "
        "without one for each thread (default 1)",
    )
    add_configuration(parser, without=_WITHOUT)
    add_output_options(parser, "what was tried and what came out")


def run(options: dict[str, Any]) -> int:
    """Check everything, train what is not yet trained, choose, test, and compare."""
    plan, data_root = checked(options)
    report = reporter(options)
    from era_support_packages.runs.comparison import compare
    from era_support_packages.runs.sweep import run_sweep

    result = run_sweep(plan, data_root, report, options["jobs"])

    def text() -> str:
        parts = [str(result)]
        if len(result.finals) > 1:
            parts.append(str(compare(*(result.root / found.run for found in result.finals), data_root=data_root)))
        return "\n\n".join(parts)

    print_result(result.to_dict(), options, text)
    return 0


def checked(options: dict[str, Any]) -> tuple[SweepPlan, str | None]:
    """The plan and where its data lies, checked before PyTorch is imported. Raises `SweepError` or `ParameterError`."""
    search = options["search"]
    if search is not None and (not is_number(search, whole=True) or not 1 <= search <= 10_000):
        raise SweepError(f"--search {search} is no number of trials: give a whole number from 1 to 10000.")
    jobs = options["jobs"]
    if jobs != "all" and (not is_number(jobs, whole=True) or not 1 <= jobs <= MOST_JOBS):
        raise SweepError(f"--jobs {jobs} is no number of processes: give a whole number from 1 to {MOST_JOBS}, or all.")
    space, seeds = read_space(options["space"], search is not None), read_seeds(options["seeds"])
    fixed = {name: options[name] for name in fields(TrainingConfig) if options.get(name) is not None}
    fixed.setdefault("validation", VALIDATION)
    Parameters({**fixed, "preset": options["preset"], "data_root": options["data_root"]}).check()
    plan = SweepPlan(space, seeds, fixed, options["preset"], None if search is None else int(search))
    plan.check()
    return plan, options["data_root"]
