"""The stop button of JupyterLab in a long training: it ends within seconds, and the rest of the page comes."""

import time

from check_executed import code_cells, errors
from conftest import open_copy

TRAINING = "cell-15"
STOP_SECONDS = 5
# What takes long and has been run already.
OFF = dict.fromkeys(("explore_methods", "check_faithfulness", "check_sanity", "plant_shortcut"), False)


def test_the_stop_button_ends_training_and_the_cells_after_it_run(browser, lab, folder):
    page = open_copy(browser, lab, "stopped.ipynb", train_images=20000, **OFF)
    number = page.number(TRAINING)
    page.run_all()
    page.wait_for_output(number, r"^ +1 .*\d$", 300)  # the row of the first epoch
    pressed = time.monotonic()
    page.stop()
    page.wait_for_end(number, 60)
    seconds = time.monotonic() - pressed
    page.wait_until_done(120)
    notebook = page.saved()
    page.set_width(1000)
    page.photograph(folder / "stopped", [number for number, _ in code_cells(notebook)])
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert seconds < STOP_SECONDS
    drawn = [path.name for path in (lab.folder / "stopped").glob("*/*.png")]
    assert {"training_log.png", "confusion_matrix.png", "incorrect_classification.png"} <= set(drawn)
    assert not errors(notebook), "\n".join(errors(notebook))
