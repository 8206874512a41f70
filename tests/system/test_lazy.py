"""The faces of the rooms: each name is there, is the thing it names, and costs nothing before it is asked for."""

import ast
import importlib
from pathlib import Path

import pytest

import era_support_packages

PACKAGE = Path(era_support_packages.__file__).parent
FACES = [
    ".".join(["era_support_packages", *file.parent.relative_to(PACKAGE).parts])
    for file in sorted(PACKAGE.rglob("__init__.py"))
    if "public_names(" in file.read_text(encoding="utf-8")
]


def listed(face: str) -> dict[str, str]:
    """Name to module, as Python itself reads the block for type checkers."""
    tree = ast.parse(Path(importlib.import_module(face).__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.asname: node.module for node in block.body for alias in node.names}


def test_every_room_has_a_face():
    rooms = {f"era_support_packages.{path.name}" for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms - set(FACES) == {"era_support_packages.plots", "era_support_packages.system"}


@pytest.mark.parametrize("face", FACES)
def test_a_face_hands_on_what_its_block_lists_and_nothing_else(face):
    module, names = importlib.import_module(face), listed(face)
    assert module.__all__ == dir(module) == sorted(names)
    assert None not in names, "each import says `name as name`, or checkers take it for private"
    for name, source in names.items():
        if source == face:
            assert getattr(module, name) is importlib.import_module(f"{face}.{name}")
        else:
            assert getattr(module, name) is getattr(importlib.import_module(source), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_room_is_cheap_to_import(run_code):
    code = "import sys, era_support_packages, era_support_packages.training, era_support_packages.gradcam\n"
    assert run_code(code + "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))") == "set()\n"
