"""Packages that are used where they are installed, and are no requirement."""

import importlib.util


def is_installed(module: str) -> bool:
    """Whether a module can be imported, found without importing it; a folder that only has its name is none."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # of a module that somebody made by hand
        return False
    return found is not None and found.origin is not None
