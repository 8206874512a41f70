"""The button of section 17 in a browser: a photo chosen on the person's computer becomes a panel below it."""

import nbformat
import numpy as np
import pytest
from conftest import NOTEBOOK, typed
from notebook_page import NotebookPage
from PIL import Image

NEEDED = ("cell-03", "cell-05", "cell-07", "cell-11")  # parameters, bootstrap, configuration, network
UNTRAINED = """from era_support_packages import Classifier
classifier = Classifier(network.eval(), test.classes, test.mean, test.std, 16, image_size=32)"""
CELL = "photo-code"


@pytest.fixture(scope="module")
def page(browser, lab):
    """The section alone, with a network that has learnt nothing."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    cells["cell-03"].source = typed(
        cells["cell-03"].source, preset="smoke", dataset="digits", output_dir="runs/browser/own-photo"
    )
    between = nbformat.v4.new_code_cell(UNTRAINED)
    notebook.cells = [*(cells[name] for name in NEEDED), between, cells[CELL]]
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, lab.folder / "own-photo.ipynb")
    page = NotebookPage(browser, lab, "own-photo.ipynb")
    page.run_all()
    page.wait_until_done(300)
    return page


def test_the_cell_ends_with_a_button_and_does_not_wait_for_it(page):
    number = page.number(CELL)
    assert "Set photo in section 1" in page.output_text(number)
    assert "press the button" in page.output_text(number)
    assert page.panel(CELL).root.locator("button").inner_text().startswith("Your own photos")


def test_a_photo_and_a_broken_one_are_answered(page, folder, tmp_path):
    files = [tmp_path / "cat.png", tmp_path / "broken.jpg"]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(files[0])
    files[1].write_bytes(b"no image")
    panel = page.panel(CELL)
    with page.page.expect_file_chooser() as chosen:
        panel.root.locator("button").click()
    chosen.value.set_files(files)
    page.until(panel.pictures, 120, "The panel is drawn")
    page.until(lambda: "uncalibrated" in page.output_text(page.number(CELL)), 30, "The last sentence has come")
    said = page.output_text(page.number(CELL))
    assert "cat.png: " in said
    assert "1 of 2 photos could not be read: broken.jpg" in said
    assert len(panel.pictures()) == 1
    page.photograph(folder / "own-photo", [page.number(CELL)])
