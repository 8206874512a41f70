"""The streams of a command where the shell has closed them."""

import os
import sys


def give_streams() -> None:
    """Where stdout or stderr is closed, as by `>&-`, Python has None: what is said there is for nobody, and no fault."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
