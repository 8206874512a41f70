"""The command line: a file for each sub-command, and what they share. `python -m era_support_packages --help` lists them."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.commands.command_line import main as main

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
