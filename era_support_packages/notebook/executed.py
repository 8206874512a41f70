"""An executed notebook: which run it shows, what it is made with, and the same as an HTML page."""

import copy
import re
from pathlib import Path
from typing import Any

import nbformat

from era_support_packages.bootstrap import repository_folder
from era_support_packages.notebook import provenance
from era_support_packages.notebook.parameters import Parameters
from era_support_packages.plots.explorer_panel import WIDGET_VIEW
from era_support_packages.runs.folder import Run
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.training.cost import duration

TITLED_PICTURES = """
{%- extends "lab/index.html.j2" -%}
{%- block data_png scoped -%}
{%- set title = output | get_metadata("alt", "image/png") or "" -%}
{{ super() | replace("<img ", '<img alt="' ~ (title | escape_html) ~ '" ', 1) }}
{%- endblock -%}
"""
"""a template: nbconvert's own gives every picture the words that it has no description"""


def tags(cell: Any) -> list[str]:
    """The tags of a cell, by which it is found whatever is written in it."""
    return cell.metadata.get("tags", [])


def run_folder(notebook: Any) -> Path:
    """The folder that the cell tagged `files` names."""
    for cell in notebook.cells:
        if "files" in tags(cell):
            text = "".join(output.get("text", "") for output in cell.outputs)
            if found := re.match(r"Everything is in\s(.+)", text):
                return repository_folder() / found.group(1)
    raise ValueError("The notebook has no cell tagged 'files', so its run's folder is unknown.")


def seconds(folder: Path, result: Any) -> str:
    """How long training and the whole notebook took."""
    training, whole = Run(folder).summary()["seconds"], result.metadata.papermill.duration
    return f"Training took {duration(training)}, the whole notebook {duration(whole)}."


def failed_in(notebook: Path, tag: str) -> bool:
    """Whether it was a cell of this tag that raised."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if tag in tags(cell)]
    return any(output.output_type == "error" for cell in cells for output in cell.get("outputs", []))


def say_what_made_it(notebook: Path, parameters: Parameters, ending: str) -> None:
    """Put the provenance of its own outputs into the cell tagged `made-with` of an executed notebook."""
    content = nbformat.read(notebook, as_version=4)
    outputs = [output for cell in content.cells if "configuration" in tags(cell) for output in cell.get("outputs", [])]
    said = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    for cell in content.cells:
        if "made-with" in tags(cell):
            cell.source = f"{said[0] if said else provenance.of_failed(parameters)} {ending}"
    write_atomically(notebook, (nbformat.writes(content) + "\n").encode())


def to_html(notebook: Path) -> Path:
    """The notebook as one HTML page with its pictures inside, beside it. Its title is the run's name, and the alternative text of
    each picture that of the figure.
    """
    from nbconvert import HTMLExporter

    content = without_widgets(nbformat.read(notebook, as_version=4))
    resources = {"metadata": {"name": notebook.resolve().parent.name}}
    page, _ = HTMLExporter(raw_template=TITLED_PICTURES).from_notebook_node(content, resources)
    target = notebook.with_suffix(".html")
    write_atomically(target, page.encode())
    return target


def without_widgets(notebook: Any) -> Any:
    """A copy in which what stands in for widgets is shown: without a kernel a panel's knobs do nothing."""
    result = copy.deepcopy(notebook)
    result.metadata.pop("widgets", None)
    for output in (output for cell in result.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop(WIDGET_VIEW, None)
    return result
