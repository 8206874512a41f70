"""The notebook without a browser: run it with other parameters, and make the committed copy with its outputs.

python -m era_support_packages.notebook run -p preset cpu -p epochs 3
python -m era_support_packages.notebook render -p dataset data/cifar10-jpeg
"""

import argparse
import base64
import contextlib
import copy
import datetime
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from era_support_packages.atomic_file import write_atomically
from era_support_packages.bootstrap import repository_folder
from era_support_packages.config import TrainingConfig, nearest_names
from era_support_packages.explorer import WIDGET_VIEW
from era_support_packages.papermill_output import printed
from era_support_packages.runs import Run

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
# "auto" in every preset: what the machine and the data make of it is no choice of the person
RESOLVED = ("device", "precision", "engine", "workers", "threads", "horizontal_flip")


class NotebookError(RuntimeError):
    """A cell of the notebook raised; the message is the last line of its traceback."""


def notebook_file() -> Path:
    """The committed notebook."""
    return repository_folder() / "notebooks" / "gradcam_cifar10.ipynb"


# ---- parameters ------------------------------------------------------------------------------------------------------


def parameter_names(notebook: Path) -> list[str]:
    """The names assigned in the cell tagged `parameters`, as papermill reads them."""
    from papermill import inspect_notebook

    return list(inspect_notebook(str(notebook)))


def parse_parameters(pairs: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, Any]:
    """Names and values of `-p NAME VALUE`: JSON where the text is JSON, None and True as in Python, else the text itself.

    Raises `ValueError` for a name that the notebook does not have.
    """
    unknown = [name for name, _ in pairs if name not in names]
    if unknown:
        raise ValueError(" ".join(f"Unknown parameter {name!r}: {nearest_names(name, names)}" for name in unknown))
    constants = {"None": None, "True": True, "False": False}
    values: dict[str, Any] = {}
    for name, text in pairs:
        values[name] = constants.get(text, text)
        if isinstance(values[name], str):
            with contextlib.suppress(json.JSONDecodeError):
                values[name] = json.loads(text)
    return values


# ---- execution -------------------------------------------------------------------------------------------------------


def execute(notebook: Path, parameters: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Execute a notebook with papermill from the repository's root; the executed copy, and the run's folder.

    What cells print and show appears while they run. The copy is written into `folder` and keeps the outputs up to a cell that
    fails. Raises `NotebookError` then.
    """
    import papermill

    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / f"executed-{os.getpid()}.ipynb"
    try:
        with printed():
            result = papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=parameters,
                cwd=str(repository_folder()),
                progress_bar=False,
                log_output=True,
                kernel_name="python3",
            )
    except papermill.PapermillExecutionError as error:
        failed = executed.with_name("failed.ipynb")
        os.replace(executed, failed)
        raise NotebookError(f"{error.ename}: {error.evalue} (the notebook up to there is {failed})") from None
    return executed, _run_folder(result)


def _run_folder(notebook: Any) -> Path:
    """The folder that the cell tagged `files` names."""
    for cell in notebook.cells:
        if "files" in cell.metadata.get("tags", []):
            text = "".join(output.get("text", "") for output in cell.outputs)
            return repository_folder() / re.match(r"Everything is in\s(.+)", text).group(1)
    raise NotebookError("The notebook has no cell tagged 'files', so its run's folder is unknown.")


def to_html(notebook: Path) -> Path:
    """The notebook as one HTML page with its pictures inside, beside it."""
    import nbformat
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_notebook_node(without_widgets(nbformat.read(notebook, as_version=4)))
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


def run(pairs: Sequence[Sequence[str]]) -> str:
    """Execute the notebook with these parameters into its run's folder; returns where everything is."""
    parameters = parse_parameters(pairs, parameter_names(notebook_file()))
    runs = repository_folder() / str(parameters.get("output_dir") or "runs")
    executed, folder = execute(notebook_file(), parameters, runs)
    target = folder / "notebook.ipynb"
    os.replace(executed, target)
    figures = "\n".join(f"  {path}" for path in sorted(folder.glob("*.png")))
    return f"\nnotebook  {target}\nHTML      {to_html(target)}\nfigures\n{figures}"


# ---- the committed copy ----------------------------------------------------------------------------------------------


def cleaned(notebook: Any, source: Any, provenance: str) -> Any:
    """An executed notebook as it is committed: the source's cells and metadata with the new outputs.

    No injected cell, no papermill metadata, no empty outputs, execution counts 1 to n, no path of this machine; the cell
    tagged `made-with` says which values made the outputs.
    """
    result = copy.deepcopy(source)
    executed = {cell["id"]: cell for cell in without_widgets(notebook).cells}
    count = 0
    for cell in result.cells:
        if "made-with" in cell.metadata.get("tags", []):
            cell.source = provenance
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
    colours = Image.open(io.BytesIO(picture)).convert("RGB")
    palette = colours.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
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
    import nbformat

    source = nbformat.read(notebook_file(), as_version=4)
    parameters = parse_parameters(pairs, parameter_names(notebook_file()))
    start = time.time()
    executed, folder = execute(notebook_file(), parameters, repository_folder() / "runs")
    outputs = nbformat.read(executed, as_version=4)
    drawn = {path.name for path in folder.glob("*.png") if path.stat().st_mtime >= start}  # an earlier showing may have left more
    if missing := [name for name in (*FIGURES, *DOCS_FIGURES) if name not in drawn]:
        raise NotebookError(
            f"the notebook drew no {', '.join(missing)}; what it said instead is in {executed}. Nothing was changed."
        )
    result = cleaned(outputs, source, _provenance(parameters, Run(folder), _printed(outputs)))
    executed.unlink()
    nbformat.validate(result)
    write_atomically(notebook_file(), (nbformat.writes(result) + "\n").encode())
    images, figures = repository_folder() / "images", repository_folder() / "docs" / "figures"
    images.mkdir(exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        shutil.copyfile(folder / name, images / name)
    for name in DOCS_FIGURES:
        write_atomically(figures / name, palette_png((folder / name).read_bytes()))
    return f"{notebook_file()}, {len(FIGURES)} images in images/ and {len(DOCS_FIGURES)} in docs/figures/, from {folder}"


def _printed(notebook: Any) -> str:
    """All that the cells printed."""
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def _provenance(parameters: dict[str, Any], run: Run, printed: str = "") -> str:
    """The sentence that says which values, data, machine and day made the outputs."""
    from era_support_packages.hardware import describe, resolve_device, versions

    summary = run.summary()
    shown = f"the run was finished before and is shown here, on {describe(resolve_device())} with PyTorch {versions()['torch']}"
    if "finished_run" in parameters:
        how = shown
        values = run.config().to_dict()
        preset = TrainingConfig.preset(values.pop("preset_name"))
        changed = {name: value for name, value in values.items() if value is not None and value != preset.to_dict()[name]}
        values = {"preset": preset.preset_name, **{name: changed[name] for name in changed if name not in RESOLVED}}
    else:
        how, values = "the run was trained in this notebook", parameters
        if "Not trained now:" in printed:
            how = shown
        elif "Going on with" in printed:
            how = "the run was begun before and finished in this notebook"
    listed = ", ".join(f"`{name} = {value!r}`" for name, value in values.items())
    today = datetime.date.today().isoformat()
    return (
        f"The outputs below come from one real run with {listed}; every other value was the preset's. "
        f"Data: {summary['dataset']}; hardware: {summary['hardware']}; PyTorch {summary['versions']['torch']}; {today}; {how}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 where a cell failed, 2 for a bad value."""
    parser = argparse.ArgumentParser(prog="python -m era_support_packages.notebook", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "render"))
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    options = parser.parse_args(arguments)
    try:
        print({"run": run, "render": render}[options.command](options.p))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
