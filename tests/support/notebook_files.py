"""The committed notebook, a small one, and what is looked for in them."""

from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "gradcam_cifar10.ipynb"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="  # a PNG


def read(file: Path = NOTEBOOK) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def displayed(*data: dict) -> list[nbformat.NotebookNode]:
    return [nbformat.v4.new_output("display_data", values) for values in data]


def small_notebook() -> nbformat.NotebookNode:
    """Words on its making, a parameters cell, and a cell that prints."""
    cells = [
        nbformat.v4.new_markdown_cell("old words", metadata={"tags": ["made-with"]}, id="m"),
        nbformat.v4.new_code_cell("seed: int = 0  # seed", metadata={"tags": ["parameters"]}, id="p"),
        nbformat.v4.new_code_cell("print(seed)", id="c"),
    ]
    return nbformat.v4.new_notebook(cells=cells)
