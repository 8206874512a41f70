"""runs: list them, rename, delete, prune them, name the best."""

import sys
from typing import Any

from era_support_packages.commands.output import add_output_options, add_run_options, print_result, reporter
from era_support_packages.runs.listing import SORT_KEYS, RunList, find_runs, list_runs
from era_support_packages.system.command_values import CommandLineError, CommandParser, read_value

_USAGE = """{0} [list] [--sort COLUMN] [--where NAME=VALUE ...]
       {0} best [--dataset NAME] [--where NAME=VALUE ...]
       {0} rename RUN NEW_NAME
       {0} delete RUN [RUN ...] [--yes]
       {0} prune [RUN ...] [--weights half|none] [--yes]"""
_LUCK = (
    "Of runs that differ little, the highest is the luckiest too: to choose between values, give each several seeds and compare "
    "their means."
)
_ACTIONS = ("list", "best", "rename", "delete", "prune")


def add_options(parser: CommandParser) -> None:
    """What to do, with which runs."""
    parser.usage = _USAGE.format(parser.prog)
    parser.add_argument("action", nargs="?", default="list", choices=_ACTIONS, help="list (the default), best, rename, ...")
    add_run_options(parser, "names of runs, or their folders", data=False, nargs="*")
    parser.add_argument("--sort", metavar="COLUMN", help=f"one of {', '.join(SORT_KEYS)}; downwards with -: --sort=-test")
    only = "only runs with these values: preset=cpu seed=1"
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=only)
    parser.add_argument("--dataset", metavar="NAME", help="for best: among the runs on this data")
    parser.add_argument(
        "--weights",
        default="half",
        choices=("half", "none"),
        help="for prune: keep the weights in half precision (the default), or none of them; record and figures stay",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_output_options(parser, "the runs")


def run(options: dict[str, Any]) -> int:
    """Do it; only rename, delete and prune change anything."""
    action, names = options["action"], options["names"]
    if action in ("list", "best") and names:
        raise CommandLineError(f"{action} takes no names of runs, but {names[0]!r} is given: use --where name={names[0]}.")
    if action == "list":
        return _list(options)
    if action == "best":
        return _best(options)
    if action == "rename" and len(names) != 2:
        raise CommandLineError("rename takes the name of a run and the new name.")
    if action == "delete" and not names:
        raise CommandLineError("delete takes the names of the runs to delete.")
    return {"rename": _rename, "delete": _delete, "prune": _prune}[action](options)


def _chosen(options: dict[str, Any]) -> RunList:
    """The runs of the folder that --where leaves."""
    wanted = {}
    for pair in options["where"]:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandLineError(f"--where {pair!r} has no value: write NAME=VALUE, such as preset=cpu.")
        wanted[name.replace("-", "_")] = value if name in ("name", "run_name", "dataset") else read_value(value)
    found = list_runs(options["output_dir"])
    return found.where(**wanted) if wanted else found


def _best(options: dict[str, Any]) -> int:
    found = _chosen(options).best(options["dataset"])
    accuracy = found.validation_accuracy if found.judged_by == "validation" else found.test_accuracy
    if not options["quiet"]:
        print(f"The highest accuracy on the {found.judged_by} split, {accuracy:.2f} %. {_LUCK}", file=sys.stderr)
    print_result({**found.to_dict(), "judged_by": found.judged_by}, options, lambda: str(found.folder))
    return 0


def _list(options: dict[str, Any]) -> int:
    found = _chosen(options)
    if options["sort"]:
        found = found.sorted_by(options["sort"].removeprefix("-"), descending=options["sort"].startswith("-"))
    value = {"folder": str(found.root), "runs": [entry.to_dict() for entry in found.entries], "no_runs": list(found.strangers)}
    print_result(value, options, lambda: str(found))
    return 0


def _rename(options: dict[str, Any]) -> int:
    from era_support_packages.runs.keeping import rename

    old, new = options["names"]
    folder = find_runs([old], options["output_dir"])[0]
    moved = rename(folder, new)
    print_result({"from": str(folder), "to": str(moved)}, options, lambda: f"{folder} is now {moved}.")
    return 0


def _delete(options: dict[str, Any]) -> int:
    from era_support_packages.runs.keeping import check_run, delete

    folders = list(dict.fromkeys(find_runs(options["names"], options["output_dir"])))
    for folder in folders:  # all of them before any is deleted
        check_run(folder)
    if not _agreed(f"Delete {', '.join(map(str, folders))} for good?", options):
        return 1
    for folder in folders:
        delete(folder)
    print_result({"deleted": list(map(str, folders))}, options, lambda: f"Deleted {', '.join(map(str, folders))}.")
    return 0


def _prune(options: dict[str, Any]) -> int:
    from era_support_packages.runs.keeping import prunable, prune

    root, names = options["output_dir"], options["names"]
    folders = find_runs(names, root) if names else [entry.folder for entry in list_runs(root).entries]
    able = [folder for folder in folders if not prunable(folder)]
    report = reporter(options)
    for folder in folders:
        if problem := prunable(folder):
            report(f"{folder} is left as it is: {problem}.")
    if not able:
        print_result({"pruned": [], "bytes": 0}, options, lambda: "There is nothing to prune.")
        return 0
    what = "in half precision" if options["weights"] == "half" else "not at all"
    if not _agreed(f"Keep the weights of {len(able)} runs {what}?", options):
        return 1
    pruned, freed, failed = [], 0, False
    for folder in able:
        try:
            size = prune(folder, options["weights"])
        except ValueError as error:
            problem = str(error)  # which may name the folder itself
            own = f"{folder} "
            report(f"{own}is left as it is: {f'it {problem.removeprefix(own)}' if problem.startswith(own) else problem}")
            failed = True
            continue
        pruned.append(str(folder))
        freed += size
        report(f"{folder}: {size / 2**20:.1f} MiB less.")
    print_result({"pruned": pruned, "bytes": freed}, options, lambda: f"{freed / 2**20:.1f} MiB less in all.")
    return int(failed)


def _agreed(question: str, options: dict[str, Any]) -> bool:
    """Ask, on stderr. Raises `CommandLineError` where nobody can answer."""
    if options["yes"]:
        return True
    if not sys.stdin.isatty():
        raise CommandLineError(f"{question} Nobody is there to answer: give --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False
