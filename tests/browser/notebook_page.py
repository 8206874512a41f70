"""A notebook as a person has it before them: open in JupyterLab, run, stopped, looked at."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
from jupyter_lab import Lab
from panel import Panel
from playwright.sync_api import BrowserContext, Locator

HEIGHT = 1200  # of the window, pixels
OPEN_SECONDS = 60
LOOK_MILLISECONDS = 250  # between two looks at what is waited for


class Unfinished(AssertionError):
    """Something on the page did not happen in time."""


class NotebookPage:
    """One notebook in one browser window. Numbers of cells count all cells from 0, as in the file."""

    def __init__(self, context: BrowserContext, lab: Lab, name: str, width: int = 1440) -> None:
        self.lab, self.file = lab, lab.folder / name
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.goto(lab.address(name), timeout=1000 * OPEN_SECONDS)
        self.cells = self.page.locator(".jp-Notebook > * .jp-Cell, .jp-Notebook > .jp-Cell")
        self.page.locator(".jp-NotebookPanel-toolbar").wait_for(timeout=1000 * OPEN_SECONDS)
        # The page calls the kernel idle before it is connected to it, and then asks which one to take.
        self.until(lambda: lab.is_connected(name), OPEN_SECONDS, "The notebook has its kernel")
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        self.source = nbformat.read(self.file, as_version=4)
        self.until(lambda: self.cells.count() == len(self.source.cells), 20, "All cells are in the page")
        self.hide_file_browser()

    def hide_file_browser(self) -> None:
        """The notebook has the window to itself."""
        if self.page.locator("#jp-left-stack").is_visible():
            self.page.keyboard.press("Control+b")
            self.page.locator("#jp-left-stack").wait_for(state="hidden")

    # ---- running -----------------------------------------------------------------------------------------------------

    def run_all(self) -> None:
        """Choose "Run All Cells" in the menu; does not wait for the cells."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator("[data-command='runmenu:run-all']").click()
        self.until(lambda: self.waiting() or self.prompts()[-1].strip("[]: "), 20, "The cells start")

    def prompts(self) -> list[str]:
        """The prompts of all code cells: "[3]:" done, "[*]:" running or waiting, "[ ]:" not run."""
        return self.page.locator(".jp-CodeCell .jp-InputArea-prompt").all_inner_texts()

    def waiting(self) -> int:
        return sum("*" in prompt for prompt in self.prompts())

    def wait_until_done(self, seconds: float) -> None:
        """Until no cell runs or waits any more."""
        self.until(lambda: not self.waiting(), seconds, "All cells are done")

    def number(self, cell_id: str) -> int:
        """The number of the cell with this id."""
        return [cell.id for cell in self.source.cells].index(cell_id)

    def is_running(self, number: int) -> bool:
        return "*" in self.cells.nth(number).locator(".jp-InputArea-prompt").inner_text()

    def output_text(self, number: int) -> str:
        return "\n".join(self.cells.nth(number).locator(".jp-OutputArea-output").all_inner_texts())

    def wait_for_output(self, number: int, pattern: str, seconds: float) -> None:
        self.until(
            lambda: re.search(pattern, self.output_text(number), re.MULTILINE), seconds, f"Cell {number} shows {pattern!r}"
        )

    def wait_for_end(self, number: int, seconds: float) -> None:
        """Until this cell no longer runs."""
        self.until(lambda: not self.is_running(number), seconds, f"Cell {number} ends")

    def stop(self) -> None:
        """Press the stop button of the toolbar."""
        self.page.locator(".jp-NotebookPanel-toolbar [data-command='notebook:interrupt-kernel']").click()

    def saved(self) -> nbformat.NotebookNode:
        """The notebook with its outputs, saved by the menu and read again."""
        before = self.file.stat().st_mtime_ns
        self.page.get_by_role("menuitem", name="File", exact=True).click()
        self.page.locator(".lm-Menu [data-command='docmanager:save']").click()
        self.until(lambda: self.file.stat().st_mtime_ns != before, 20, "The notebook is saved")
        time.sleep(0.5)
        return nbformat.read(self.file, as_version=4)

    def until(self, true: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until it is true; after these seconds keep a picture of the window and raise `Unfinished`."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                self.page.screenshot(path=self.lab.folder / "unfinished.png")
                raise Unfinished(f"{what}: not within {seconds:g} seconds. The prompts: {' '.join(self.prompts())}")
            self.page.wait_for_timeout(LOOK_MILLISECONDS)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def set_width(self, width: int) -> None:
        """Make the window this wide and wait until the page has settled."""
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.wait_for_timeout(1000)

    def shown_pictures(self, number: int) -> int:
        """How many pictures the outputs of a cell show, loaded and visible; those of widgets do not count."""
        images = self.cells.nth(number).locator(".jp-RenderedImage img")
        return images.evaluate_all("images => images.filter(image => image.complete && image.naturalWidth && image.width).length")

    def layout_faults(self, javascript: str) -> list[str]:
        """What the function says of each cell, with the cell's number and id."""
        return [
            f"cell {number} ({cell.id}): {fault}"
            for number, cell in enumerate(self.source.cells)
            for fault in self.cells.nth(number).evaluate(javascript)
        ]

    def panel(self, cell_id: str) -> Panel:
        """The widgets that a cell shows."""
        outputs = self.cells.nth(self.number(cell_id)).locator(".jp-OutputArea-output")
        return Panel(self, outputs.filter(has=self.page.locator(".jupyter-widgets")))

    def photograph(self, folder: Path, numbers: Sequence[int] | None = None) -> None:
        """A picture of each cell, whole, as `folder/07-cell-05.png`; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        width = self.page.viewport_size["width"]
        for number in range(len(self.source.cells)) if numbers is None else numbers:
            cell = self.cells.nth(number)
            needed = int(cell.bounding_box()["height"]) + 250  # with the menu and the toolbar
            if needed > self.page.viewport_size["height"]:
                self.page.set_viewport_size({"width": width, "height": needed})
            self._picture(cell, folder / f"{number:02}-{self.source.cells[number].id}.png")
        self.page.set_viewport_size({"width": width, "height": HEIGHT})

    def _picture(self, cell: Locator, path: Path) -> None:
        cell.evaluate("cell => cell.scrollIntoView({block: 'start'})")
        cell.screenshot(path=path)
