"""A JupyterLab, a browser, and the notebook run in both once; `make browser` runs the checks of this folder.

Plain pytest leaves them alone: their files are called check_*.py.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "gradcam_cifar10.ipynb"
FOLDER = REPOSITORY / "runs" / "browser"
RUN_SECONDS = 800  # on two cores that others use as well; a minute and a half when they are free
CHROMIUM = ("chromium", "chromium-browser")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but this machine: the same page everywhere
]


@pytest.fixture(scope="session")
def folder() -> Path:
    """An empty folder for pictures, copies of the notebook and their runs, kept when the tests are done."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    return FOLDER


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, or Chrome, with an empty profile; where there is neither, the tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; `make browser` installs it.")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            context = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"),
                **({"executable_path": chromium} if chromium else {"channel": "chrome"}),
                headless=True,
                chromium_sandbox=False,  # root has none
                args=FLAGS,
            )
        except sync_api.Error as error:
            if chromium or "is not found" not in error.message:
                raise
            pytest.skip("There is no Chromium and no Chrome here; `apt-get install chromium` brings one.")
        yield context
        context.close()


@pytest.fixture(scope="session")
def lab(browser: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """JupyterLab, serving the folder; ended also where the tests are told to end."""
    from jupyter_lab import running_lab

    from era_support_packages.system.interrupts import sigterm_interrupts

    with sigterm_interrupts(), running_lab(folder, tmp_path_factory.mktemp("jupyter")) as server:
        yield server


def open_copy(browser: Any, lab: Any, name: str, **values: Any) -> Any:
    """A copy of the notebook without outputs, with these values typed into its parameters, opened."""
    from notebook_page import NotebookPage

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    output_dir = (lab.folder / Path(name).stem).relative_to(REPOSITORY).as_posix()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = typed(cell.source, preset="smoke", dataset="digits", output_dir=output_dir, **values)
    nbformat.write(notebook, lab.folder / name)
    return NotebookPage(browser, lab, name)


def typed(parameters: str, **values: Any) -> str:
    """The source of the parameters cell with other values; what has no line of its own goes into `more`."""
    lines = {name: re.compile(rf"(?m)^({name}: \w+ = )\S+") for name in (*values, "more")}
    values["more"] = {name: values.pop(name) for name in list(values) if not lines[name].search(parameters)}
    if not values["more"]:
        del values["more"]
    for name, value in values.items():
        parameters, found = lines[name].subn(lambda match, value=value: match[1] + repr(value), parameters)
        assert found == 1, f"the parameters cell has no line for {name}"
    return parameters


@pytest.fixture(scope="session")
def executed(browser: Any, lab: Any) -> SimpleNamespace:
    """The notebook after "Run All Cells" with smoke on the digits: `.page`, `.notebook` as saved, `.run` its run's folder."""
    page = open_copy(browser, lab, "run.ipynb")
    page.run_all()
    page.wait_until_done(RUN_SECONDS)
    notebook = page.saved()
    runs = [path for path in (lab.folder / "run").iterdir() if path.is_dir()]
    return SimpleNamespace(page=page, notebook=notebook, run=runs[0] if len(runs) == 1 else None)
