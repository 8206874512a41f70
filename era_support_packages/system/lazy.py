"""Public names that are imported when they are first asked for, so that importing a room costs nothing."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r"^    from ([\w.]+) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)


def public_names(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose `if TYPE_CHECKING:` block imports its public names.

    The block is the one list of these names: type checkers and editors read it, and so does this function, which runs none of
    its imports. `from x.module import name as name` gives a name of a module, `from x import module as module` a module of x.
    """
    block = Path(file).read_text(encoding="utf-8").split("\nif TYPE_CHECKING:\n")[1]
    places: dict[str, str] = {}
    for module, several, one in _IMPORT.findall(block):
        for each in (several or one).split(","):
            if each.strip():
                places[each.split(" as ")[-1].strip()] = module

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if places[name] == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(places[name]), name)

    names = sorted(places)
    return names, find, lambda: names
