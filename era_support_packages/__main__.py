"""The command line: `python -m era_support_packages --help` lists its commands; without one it trains.

python -m era_support_packages --preset cpu --dataset data/cifar10-jpeg --seed 1
"""

import sys

from era_support_packages.commands.command_line import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
