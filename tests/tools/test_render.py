"""The tool that makes the committed notebook and its pictures: what it keeps, what it says, when it changes nothing."""

import base64
import copy
import io
import os
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_files import NOTEBOOK, PIXEL, displayed, read, small_notebook, tagged
from PIL import Image

from era_support_packages.notebook import execution
from era_support_packages.notebook.parameters import Parameters
from era_support_packages.plots.explorer_panel import WIDGET_VIEW
from era_support_packages.runs.folder import Run
from era_support_packages.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
START = "The outputs saved in this file come from one real run with "


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import render

    return render


def test_the_pictures_are_there_and_shown_by_their_pages(tool):
    for page, names, folder in (
        ("README.md", tool.FIGURES, "images"),
        ("docs/reading-heatmaps.md", tool.DOCS_FIGURES, "figures"),
    ):
        text, beside = (ROOT / page).read_text(), (ROOT / page).parent / folder
        for name in names:
            assert (beside / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
            assert f"({folder}/{name})" in text
    assert {path.name for path in (ROOT / "docs" / "figures").iterdir()} >= set(tool.DOCS_FIGURES)
    assert "(docs/reading-heatmaps.md)" in (ROOT / "README.md").read_text()
    assert "\n\t$(PY) tools/render.py $(ARGS)\n" in (ROOT / "Makefile").read_text()


def test_cleaning_keeps_outputs_and_drops_traces(tool):
    source = small_notebook()
    executed = copy.deepcopy(source)
    executed.cells.insert(2, nbformat.v4.new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}, id="i"))
    executed.metadata["papermill"] = {"output_path": "somewhere"}
    executed.cells[3].metadata["papermill"] = {"duration": 1}
    executed.cells[3].execution_count = 9
    executed.cells[3].outputs = [
        *displayed({"text/plain": ""}),  # what is left of a progress bar
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text=f"7 in {ROOT}/runs/x\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "7"}, execution_count=9),
    ]
    result = tool.cleaned(executed, source, "new words")
    assert [(cell.id, cell.source) for cell in result.cells] == [
        ("m", "new words"),
        ("p", "seed: int = 0  # seed"),
        ("c", "print(seed)"),
    ]
    assert "papermill" not in result.metadata
    assert [cell.execution_count for cell in result.cells[1:]] == [1, 2]
    printed, shown = result.cells[2].outputs
    assert (printed.text, shown.data, shown.execution_count) == ("7 in runs/x\n", {"text/plain": "7"}, 2)
    assert source.cells[0].source == "old words"


def test_tables_sentences_the_picture_of_a_panel_and_what_stands_in_for_it_are_kept(tool):
    source, panel = small_notebook(), {WIDGET_VIEW: {"model_id": "1"}}
    table = {"text/html": "<table><tr><td>a cell</td></tr></table>", "text/plain": "a cell"}
    sentence = {"text/markdown": "a *sentence*", "text/plain": "a sentence"}
    stand_in, drawn = {"text/plain": "Run this cell."}, {"image/png": PIXEL, "text/plain": "panel"}
    source.cells[2].outputs = displayed(table, sentence, {**panel, **stand_in}, {**panel, **drawn})
    *kept, picture = tool.cleaned(source, source, "words").cells[2].outputs
    assert [output.data for output in kept] == [table, sentence, stand_in]
    assert set(picture.data) == set(drawn)


def test_pictures_are_kept_in_a_palette_of_their_own(tool):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = (10, 200, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    small = tool.palette_png(buffer.getvalue())
    again = Image.open(io.BytesIO(small))
    assert (again.mode, again.size) == ("P", (64, 64))
    assert len(small) < len(buffer.getvalue()) / 2
    difference = np.abs(np.array(again.convert("RGB")).astype(int) - pixels)
    assert difference[:, 32:].max() <= 1
    assert difference.mean() < 16  # noise is the worst there is
    (output,) = displayed({"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "x"})
    assert base64.b64decode(tool._cleaned_output(output, 1).data["image/png"]) == small


CHANGED = "`preset = 'cpu'`, `dataset = 'pets'`, `train_images = 500`, `max_lr = 0.2`; every other value was the preset's. "
# a run may have been trained on another machine than the one that draws its figures
SHOWN = "was finished before and is shown here, on another computer with PyTorch 2.9.1"


@pytest.mark.parametrize(
    ("given", "printed", "start", "how"),
    [
        ({"finished_run": "x"}, "", f"{CHANGED}Data: pets; hardware: a computer; PyTorch 2.6.0; 2", SHOWN),
        (
            {"preset": "smoke", "epochs": 3, "seed": 0},
            "",
            "`preset = 'smoke'`, `epochs = 3`; every other value",
            "was trained in this notebook",
        ),
        (
            {"preset": "smoke"},
            "Not trained now: this is the run x, trained in 3 s on a computer.",
            "`preset = 'smoke'`; every other value",
            SHOWN,
        ),
        (
            {"preset": "smoke"},
            "Going on with runs/x: 2 of 4 epochs are done.",
            "`preset = 'smoke'`; every other value",
            "was begun before and finished in this notebook",
        ),
    ],
)
def test_the_provenance_says_what_differs_from_the_preset_and_how_the_run_was_made(
    given, printed, start, how, tool, tmp_path, monkeypatch
):
    monkeypatch.setattr(tool, "describe", lambda device: "another computer")
    monkeypatch.setattr(tool, "versions", lambda: {"torch": "2.9.1"})
    run = Run(tmp_path)
    config = TrainingConfig.preset("cpu", dataset="pets", train_images=500, max_lr=0.2, device="cpu", precision="fp32", workers=0)
    run.write_config(config.replace(horizontal_flip=0.5))
    run.write_json("summary.json", {"dataset": "pets", "hardware": "a computer", "versions": {"torch": "2.6.0"}, "seconds": 75})
    text = tool.made_with(Parameters(given), run, printed)
    assert text.startswith(START + start)
    assert f"; the run {how}. Yours replace them" in text


@pytest.fixture
def shown(tool, tmp_path, monkeypatch):
    """A repository with the notebook alone, a run's folder with all figures, and an executed copy in place of executing it."""
    repository, run, executed = tmp_path / "repository", tmp_path / "run", tmp_path / "executed.ipynb"
    (repository / "notebooks").mkdir(parents=True)
    run.mkdir()
    for file in (repository / "notebooks" / NOTEBOOK.name, executed):
        file.write_bytes(NOTEBOOK.read_bytes())
    later = time.time() + 60
    for name in (*tool.FIGURES, *tool.DOCS_FIGURES):
        (run / name).write_bytes(base64.b64decode(PIXEL))
        os.utime(run / name, (later, later))
    Run(run).write_json("summary.json", {"dataset": "pets", "hardware": "a computer", "versions": {"torch": "2.6.0"}})
    for module in (execution, tool):
        monkeypatch.setattr(module, "repository_folder", lambda: repository)
    monkeypatch.setattr(execution, "execute", lambda *arguments: (executed, run))
    return repository, run, executed


@pytest.mark.unhurried
def test_the_notebook_and_its_pictures_are_written(tool, shown, capsys):
    repository, run, executed = shown
    assert tool.main(["-p", "preset", "smoke", "-p", "seed", "3"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"4 images in images/ and 10 in docs/figures/, from {run}")
    assert {file.name for file in (repository / "images").iterdir()} == set(tool.FIGURES)
    assert {file.name for file in (repository / "docs" / "figures").iterdir()} == set(tool.DOCS_FIGURES)
    page = read(repository / "notebooks" / NOTEBOOK.name)
    (words,) = tagged(page, "made-with")
    assert words.source.startswith(f"{START}`preset = 'smoke'`, `seed = 3`; ")
    assert len(page.cells) == len(read().cells)
    assert not executed.exists()


def test_a_section_that_drew_nothing_leaves_the_committed_files_as_they_are(tool, shown, capsys):
    repository, run, executed = shown
    before = time.time() - 60
    os.utime(run / "reliability.png", (before, before))  # of an earlier showing
    (run / "planted_shortcut.png").unlink()
    assert tool.main([]) == 1
    sentence = f"the notebook drew no planted_shortcut.png, reliability.png; what it said instead is in {executed}."
    assert capsys.readouterr().err == f"error: {sentence} Nothing was changed.\n"
    assert (repository / "notebooks" / NOTEBOOK.name).read_bytes() == NOTEBOOK.read_bytes()
    assert [path.name for path in repository.iterdir()] == ["notebooks"]


def test_a_bad_value_ends_with_its_sentence(tool, capsys):
    assert tool.main(["-p", "epochs", "-3"]) == 2
    assert capsys.readouterr().err == "error: epochs is -3; give a whole number from 1 to 10000.\n"
