"""Make the notebook's committed outputs, images/ and docs/figures/ again from one real run.

python tools/render.py -p preset fast -p dataset data/cifar10-jpeg
python tools/render.py -p finished_run runs/NAME
"""

import argparse
import base64
import copy
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import nbformat

from era_support_packages.bootstrap import repository_folder
from era_support_packages.notebook import execution, provenance
from era_support_packages.notebook.executed import tags, without_widgets
from era_support_packages.notebook.parameters import Parameters
from era_support_packages.runs.folder import Run
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.command_values import shield_negative_numbers
from era_support_packages.system.machine import describe, resolve_device, versions

FIGURES = ("lr_finder.png", "training_log.png", "incorrect_classification.png", "gradCAM.png")
DOCS_FIGURES = (
    "class_scores.png",
    "confused_pairs.png",
    "explorer.png",
    "faithfulness.png",
    "faithfulness_curves.png",
    "planted_shortcut.png",
    "reliability.png",
    "sanity_check.png",
    "sanity_maps.png",
    "suspicious_labels.png",
)


def cleaned(notebook: Any, source: Any, words: str) -> Any:
    """An executed notebook as it is committed: the source's cells and metadata with the new outputs.

    No injected cell, no papermill metadata, no empty outputs, execution counts 1 to n, no path of this machine; the cell
    tagged `made-with` says `words`: which values made the outputs.
    """
    result = copy.deepcopy(source)
    executed = {cell["id"]: cell for cell in without_widgets(notebook).cells}
    count = 0
    for cell in result.cells:
        if "made-with" in tags(cell):
            cell.source = words
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [_cleaned_output(output, count) for output in executed[cell["id"]].outputs if _says_something(output)]
    return result


def palette_png(picture: bytes) -> bytes:
    """A PNG in 256 colours of its own, spread over all that it has: a third of the size, so that the page stays light."""
    from PIL import Image

    buffer = io.BytesIO()
    colors = Image.open(io.BytesIO(picture)).convert("RGB")
    palette = colors.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _says_something(output: Any) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout" and bool(output.text.strip())
    return any(content for kind, content in output.get("data", {}).items() if kind != "text/plain" or content.strip())


def _cleaned_output(output: Any, count: int) -> Any:
    if "image/png" in output.get("data", {}):
        picture = palette_png(base64.b64decode(output.data["image/png"]))
        output.data["image/png"] = base64.b64encode(picture).decode()
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "stream":
        output.text = output.text.replace(f"{repository_folder()}{os.sep}", "")
    return output


def render(pairs: Sequence[Sequence[str]]) -> str:
    """Execute the notebook, keep it with its outputs, and write the four images; returns what was written.

    With `-p finished_run FOLDER` the run is shown again instead of trained, and the notebook says so. Raises `NotebookError`,
    and leaves all files as they are, where a section drew no figure.
    """
    source = nbformat.read(execution.notebook_file(), as_version=4)
    parameters = execution.checked_parameters(pairs)
    start = time.time()
    executed, folder = execution.execute(execution.notebook_file(), parameters, repository_folder() / "runs")
    outputs = nbformat.read(executed, as_version=4)
    drawn = {path.name for path in folder.glob("*.png") if path.stat().st_mtime >= start}  # an earlier showing may have left more
    if missing := [name for name in (*FIGURES, *DOCS_FIGURES) if name not in drawn]:
        raise execution.NotebookError(
            f"the notebook drew no {', '.join(missing)}; what it said instead is in {executed}. Nothing was changed."
        )
    result = cleaned(outputs, source, made_with(parameters, Run(folder), _printed(outputs)))
    executed.unlink()
    nbformat.validate(result)
    write_atomically(execution.notebook_file(), (nbformat.writes(result) + "\n").encode())
    images, figures = repository_folder() / "images", repository_folder() / "docs" / "figures"
    images.mkdir(exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        shutil.copyfile(folder / name, images / name)
    for name in DOCS_FIGURES:
        write_atomically(figures / name, palette_png((folder / name).read_bytes()))
    images_and_figures = f"{len(FIGURES)} images in images/ and {len(DOCS_FIGURES)} in docs/figures/"
    return f"{execution.notebook_file()}, {images_and_figures}, from {folder}"


def made_with(parameters: Parameters, run: Run, printed: str = "") -> str:
    """The words above the committed outputs, which stay true while somebody runs the page."""
    summary = run.summary()
    shown = f"the run was finished before and is shown here, on {describe(resolve_device())} with PyTorch {versions()['torch']}"
    if parameters.knobs["finished_run"] is not None:
        how, values = shown, provenance.changed_values(run.config())
    else:
        how, values = "the run was trained in this notebook", parameters.changed
        if "Not trained now:" in printed:
            how = shown
        elif "Going on with" in printed:
            how = "the run was begun before and finished in this notebook"
    return (
        f"The outputs saved in this file come from one real run with {provenance.listed(values)}; every other value was the "
        f"preset's. Data: {summary['dataset']}; hardware: {summary['hardware']}; PyTorch {summary['versions']['torch']}; "
        f"{provenance.today()}; {how}. "
        "Yours replace them as you run the cells, and section 3 says what yours are made with."
    )


def _printed(notebook: Any) -> str:
    """All that the cells printed."""
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code, as `python -m era_support_packages.notebook` does."""
    parser = argparse.ArgumentParser(prog="python tools/render.py", description=__doc__.splitlines()[0])
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    options = parser.parse_args(shield_negative_numbers(sys.argv[1:] if arguments is None else arguments))
    return execution.ended(lambda: render(options.p))


if __name__ == "__main__":
    sys.exit(main())
