"""Public names that are imported when they are first asked for, so that importing a room costs nothing."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def public_names(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose `if TYPE_CHECKING:` block imports its public names.

    The block is the one list of these names: type checkers and editors read it, and so does this function, which runs none of
    its imports. `from x import module` gives a module, `from x.module import name` a name of it.
    """
    places: dict[str, tuple[str, str]] = {}
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom) and each.module:
                    places |= {alias.asname or alias.name: (each.module, alias.name) for alias in each.names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = places[name]
        if module == package:
            return importlib.import_module(f"{module}.{original}")
        return getattr(importlib.import_module(module), original)

    names = sorted(places)
    return names, find, lambda: names
