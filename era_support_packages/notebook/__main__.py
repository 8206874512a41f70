"""The notebook without a browser: run it with other parameters.

python -m era_support_packages.notebook run -p preset cpu -p epochs 3
"""

import sys
from collections.abc import Sequence

from era_support_packages.notebook import execution
from era_support_packages.system.command_values import CommandParser
from era_support_packages.system.streams import give_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 where a cell failed, 2 for a bad value, 130 or 143 when stopped."""
    give_streams()
    parser = CommandParser(prog="python -m era_support_packages.notebook", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run",))
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    given = sys.argv[1:] if arguments is None else arguments
    return execution.ended(lambda: execution.run(parser.read(given)["p"]))


if __name__ == "__main__":
    sys.exit(main())
