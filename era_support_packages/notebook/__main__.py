"""The notebook without a browser: run it with other parameters, and make the committed copy with its outputs.

python -m era_support_packages.notebook run -p preset cpu -p epochs 3
python -m era_support_packages.notebook render -p dataset data/cifar10-jpeg
"""

import argparse
import sys
from collections.abc import Sequence

from era_support_packages.notebook import execution as notebook_run
from era_support_packages.system.command_values import shield_negative_numbers


def _render(pairs: Sequence[Sequence[str]]) -> str:
    from era_support_packages.notebook.committed import render

    return render(pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 where a cell failed, 2 for a bad value, 130 or 143 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m era_support_packages.notebook", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "render"))
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    options = parser.parse_args(shield_negative_numbers(sys.argv[1:] if arguments is None else arguments))
    try:
        print({"run": notebook_run.run, "render": _render}[options.command](options.p))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except notebook_run.NotebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
