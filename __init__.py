"""A bare clone is importable from the folder above it, as notebooks of 2023 do: `from era_support_packages.utils import *`.

Nothing is installed then, and this folder would be taken for the package: here it points at the one inside.
"""

from pathlib import Path

_inside = Path(__file__).resolve().parent / "era_support_packages" / "__init__.py"
if __name__ == "era_support_packages":  # not where a tool imports the folder under another name
    __path__, __file__ = [str(_inside.parent)], str(_inside)
    exec(compile(_inside.read_text(encoding="utf-8"), __file__, "exec"))
