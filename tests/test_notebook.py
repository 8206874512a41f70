"""The committed notebook is as it should be, and its headless runner does what it says."""

import base64
import copy
import io
import json
import os
import re
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from era_support_packages import hardware, notebook
from era_support_packages.config import TrainingConfig
from era_support_packages.explorer import WIDGET_VIEW
from era_support_packages.runs import Run

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "gradcam_cifar10.ipynb"
SUMMARY = Path(__file__).with_name("resnet18_summary.txt")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="  # a PNG
SWITCHES = ("analyse_mistakes", "explore_methods", "check_faithfulness", "check_sanity", "plant_shortcut")


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def tagged(content, tag):
    return [cell for cell in content.cells if tag in cell.metadata.get("tags", [])]


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code"]


def longest_lines(content):
    """The lines over 100 characters in what wraps nowhere: prints and the text of outputs."""
    outputs = [output for cell in code_cells(content) for output in cell.outputs]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return [line for text in texts for line in text.splitlines() if len(line) > 100 and " " in line.strip()]


# ---- the committed file ----------------------------------------------------------------------------------------------


def test_the_parameters_cell_holds_defaults_that_papermill_reads(committed):
    (cell,) = tagged(committed, "parameters")
    lines = cell.source.splitlines()
    assert all(re.fullmatch(r"\w+: (str|int|float|bool|list) = .+  # .+", line) for line in lines)
    names = notebook.parameter_names(NOTEBOOK)
    assert names == [line.split(":")[0] for line in lines]
    values = {}
    exec(cell.source, values)
    kept = {"preset": "auto", "dataset": "auto", "seed": 0, "mistakes": 10, "method": "gradcam"}
    kept |= {"output_dir": "runs", "resume": True}
    kept |= dict.fromkeys(SWITCHES, True)
    assert {name: values[name] for name in names} == {name: kept.get(name) for name in names}


def test_the_parameters_cell_keeps_continuous_integration_small(committed):
    (cell,) = tagged(committed, "parameters")
    assert cell.metadata["nbmake"]["mock"] == {"preset": "smoke", "dataset": "digits", "output_dir": "runs/smoke"}


def test_every_parameter_but_the_notebooks_own_is_one_of_the_configuration():
    own = {"preset", "data_root", "mistakes", "method", "resume", "finished_run", *SWITCHES}
    fields = set(TrainingConfig.preset("smoke").to_dict())
    assert set(notebook.parameter_names(NOTEBOOK)) - own <= fields


def test_nothing_of_the_run_that_made_it_is_left_behind(committed):
    assert not tagged(committed, "injected-parameters")
    assert "papermill" not in committed.metadata
    assert not any({"papermill", "execution"} & set(cell.metadata) for cell in committed.cells)
    text = NOTEBOOK.read_text()
    assert str(ROOT) not in text
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_it_carries_the_outputs_of_one_run_in_order(committed):
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    # augmentation, range test, log, confusion, classes, wrong predictions, four of mistakes, Grad-CAM twice, the explorer,
    # faithfulness twice, sanity check twice, the planted shortcut
    assert pictures == 18
    assert WIDGET_VIEW not in NOTEBOOK.read_text()
    assert longest_lines(committed) == []
    (prose,) = tagged(committed, "made-with")
    assert re.search(r"one real run with `\w+ = .+Data: .+; hardware: .+; PyTorch [\d.]+.*; \d{4}-\d\d-\d\d; ", prose.source)


def test_its_summary_is_the_originals_to_the_character(committed):
    (cell,) = [cell for cell in code_cells(committed) if "model_summary(network)" in cell.source]
    assert cell.outputs[0].text.rstrip("\n") == SUMMARY.read_text().rstrip("\n")


def test_the_badge_opens_this_notebook(committed):
    link = "https://colab.research.google.com/github/sushant097/era_support_packages/blob/main/notebooks/gradcam_cifar10.ipynb"
    assert f"({link})" in committed.cells[0].source
    assert f"({link})" in (ROOT / "README.md").read_text()


def test_the_images_are_pictures_that_the_readme_shows():
    readme = (ROOT / "README.md").read_text()
    for name in notebook.FIGURES:
        assert (ROOT / "images" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"(images/{name})" in readme


def test_the_figures_of_the_docs_are_pictures_that_the_page_shows():
    page = (ROOT / "docs" / "reading-heatmaps.md").read_text()
    for name in notebook.DOCS_FIGURES:
        assert (ROOT / "docs" / "figures" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"(figures/{name})" in page
    assert {path.name for path in (ROOT / "docs" / "figures").iterdir()} == set(notebook.DOCS_FIGURES)
    assert "(docs/reading-heatmaps.md)" in (ROOT / "README.md").read_text()


# ---- parameters on the command line ----------------------------------------------------------------------------------


def test_values_are_read_as_json_python_constants_or_text():
    pairs = [("a", "3"), ("b", "None"), ("c", "True"), ("d", "cpu"), ("e", "[[16, 0.5], [32, 0.5]]"), ("f", "0.1"), ("g", "007")]
    expected = {"a": 3, "b": None, "c": True, "d": "cpu", "e": [[16, 0.5], [32, 0.5]], "f": 0.1, "g": "007"}
    assert notebook.parse_parameters(pairs, list("abcdefg")) == expected


def test_an_unknown_parameter_is_refused_before_the_kernel_starts(monkeypatch, capsys):
    def never(*_):
        raise AssertionError("the notebook was executed")

    monkeypatch.setattr(notebook, "execute", never)
    assert notebook.main(["run", "-p", "epoch", "3"]) == 2
    assert capsys.readouterr().err == "error: Unknown parameter 'epoch': did you mean 'epochs'?\n"


# ---- the committed copy ----------------------------------------------------------------------------------------------


@pytest.fixture
def source():
    cells = [
        nbformat.v4.new_markdown_cell("old words", metadata={"tags": ["made-with"]}, id="m"),
        nbformat.v4.new_code_cell("seed: int = 0  # seed", metadata={"tags": ["parameters"]}, id="p"),
        nbformat.v4.new_code_cell("print(seed)", id="c"),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_cleaning_keeps_outputs_and_drops_traces(source):
    executed = nbformat.from_dict(json.loads(json.dumps(source)))
    executed.cells.insert(2, nbformat.v4.new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}, id="i"))
    executed.metadata["papermill"] = {"output_path": "somewhere"}
    executed.cells[3].metadata["papermill"] = {"duration": 1}
    executed.cells[3].execution_count = 9
    executed.cells[3].outputs = [
        nbformat.v4.new_output("display_data", {"text/plain": ""}),  # what is left of a progress bar
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text=f"7 in {ROOT}/runs/x\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "7"}, execution_count=9),
    ]
    result = notebook.cleaned(executed, source, "new words")
    assert [cell.id for cell in result.cells] == ["m", "p", "c"]
    assert "papermill" not in result.metadata
    assert result.cells[0].source == "new words"
    assert result.cells[1].source == "seed: int = 0  # seed"
    assert [cell.execution_count for cell in result.cells[1:]] == [1, 2]
    assert [output.get("text", output.get("data")) for output in result.cells[2].outputs] == [
        "7 in runs/x\n",
        {"text/plain": "7"},
    ]
    assert result.cells[2].outputs[1].execution_count == 2
    assert source.cells[0].source == "old words"


def test_without_a_kernel_the_picture_of_a_panel_is_shown(source):
    source.cells[2].outputs = [
        nbformat.v4.new_output("display_data", {WIDGET_VIEW: {"model_id": "1"}, "image/png": PIXEL, "text/plain": "panel"})
    ]
    source.metadata["widgets"] = {"state": {}}
    result = notebook.without_widgets(source)
    assert result.cells[2].outputs[0].data == {"image/png": PIXEL, "text/plain": "panel"}
    assert "widgets" not in result.metadata
    assert WIDGET_VIEW in source.cells[2].outputs[0].data
    assert set(notebook.cleaned(source, source, "words").cells[2].outputs[0].data) == {"image/png", "text/plain"}


def test_tables_sentences_and_the_stand_in_of_a_panel_are_kept_in_the_copy_and_in_the_page(committed, tmp_path):
    shown = [
        {"text/html": "<table><tr><td>a cell</td></tr></table>", "text/plain": "a cell"},
        {"text/markdown": "a *sentence*", "text/plain": "a sentence"},
        {WIDGET_VIEW: {"model_id": "1"}, "text/plain": "Run this cell."},
    ]
    executed = copy.deepcopy(committed)
    cell = code_cells(executed)[-1]
    cell.outputs = [nbformat.v4.new_output("display_data", data) for data in shown]
    kept = code_cells(notebook.cleaned(executed, committed, "words"))[-1].outputs
    assert [output.data for output in kept] == [*shown[:2], {"text/plain": "Run this cell."}]
    path = tmp_path / "page.ipynb"
    nbformat.write(executed, path)
    page = notebook.to_html(path).read_text()
    for text in ("<td>a cell</td>", "a <em>sentence</em>", "<pre>Run this cell.</pre>"):
        assert text in page


def test_pictures_are_kept_in_a_palette_of_their_own():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = (10, 200, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    small = notebook.palette_png(buffer.getvalue())
    again = Image.open(io.BytesIO(small))
    assert (again.mode, again.size) == ("P", (64, 64))
    assert len(small) < len(buffer.getvalue()) / 2
    difference = np.abs(np.array(again.convert("RGB")).astype(int) - pixels)
    assert difference[:, 32:].max() <= 1
    assert difference.mean() < 16  # noise is the worst there is
    encoded = base64.b64encode(buffer.getvalue()).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": encoded, "text/plain": "x"})
    assert base64.b64decode(notebook._cleaned_output(output, 1).data["image/png"]) == small


# a run may have been trained on another machine than the one that draws its figures
SHOWN = "was finished before and is shown here, on another computer with PyTorch 2.9.1"


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "describe", lambda device: "another computer")
    monkeypatch.setattr(hardware, "versions", lambda: {"torch": "2.9.1"})
    run = Run(tmp_path)
    config = TrainingConfig.preset("cpu", dataset="pets", train_images=500, max_lr=0.2, device="cpu", precision="fp32", workers=0)
    run.write_config(config.replace(horizontal_flip=0.5))
    run.write_json("summary.json", {"dataset": "pets", "hardware": "a computer", "versions": {"torch": "2.6.0"}})
    return run


def test_the_provenance_of_a_finished_run_lists_what_differs_from_its_preset(finished):
    text = notebook._provenance({"finished_run": "somewhere"}, finished)
    start = "The outputs below come from one real run with "
    values = "`preset = 'cpu'`, `dataset = 'pets'`, `train_images = 500`, `max_lr = 0.2`;"
    assert text.startswith(
        start + values + " every other value was the preset's. Data: pets; hardware: a computer; PyTorch 2.6.0; 2"
    )
    assert text.endswith(f"; the run {SHOWN}.")


def test_the_provenance_of_a_new_run_lists_its_parameters(finished):
    text = notebook._provenance({"preset": "smoke", "epochs": 3}, finished)
    assert text.startswith("The outputs below come from one real run with `preset = 'smoke'`, `epochs = 3`; every other value")
    assert text.endswith("; the run was trained in this notebook.")


@pytest.mark.parametrize(
    ("printed", "how"),
    [
        ("Not trained now: this is the run x, trained in 3 s on a computer.", SHOWN),
        ("Going on with runs/x: 2 of 4 epochs are done.", "was begun before and finished in this notebook"),
    ],
)
def test_the_provenance_says_when_the_run_was_not_trained_in_one_go(finished, printed, how):
    assert notebook._provenance({"preset": "smoke"}, finished, printed).endswith(f"; the run {how}.")


def test_a_section_that_drew_nothing_leaves_the_committed_files_as_they_are(tmp_path, monkeypatch):
    repository, run = tmp_path / "repository", tmp_path / "run"
    (repository / "notebooks").mkdir(parents=True)
    run.mkdir()
    copy = repository / "notebooks" / NOTEBOOK.name
    copy.write_bytes(NOTEBOOK.read_bytes())
    now = time.time()
    for name in (*notebook.FIGURES, *notebook.DOCS_FIGURES):
        (run / name).write_bytes(base64.b64decode(PIXEL))
        os.utime(run / name, (now, now + (-60 if name == "reliability.png" else 60)))  # the one is of an earlier showing
    (run / "planted_shortcut.png").unlink()
    monkeypatch.setattr(notebook, "repository_folder", lambda: repository)
    monkeypatch.setattr(notebook, "execute", lambda *arguments: (copy, run))
    sentence = (
        f"the notebook drew no planted_shortcut.png, reliability.png; what it said instead is in {copy}. Nothing was changed."
    )
    with pytest.raises(notebook.NotebookError, match=re.escape(sentence)):
        notebook.render([])
    assert copy.read_bytes() == NOTEBOOK.read_bytes()
    assert [path.name for path in repository.iterdir()] == ["notebooks"]


def test_a_failing_cell_is_reported_and_its_notebook_kept(tmp_path, capsys, monkeypatch):
    content = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("x: int = 1  # x", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("1 / 0"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = tmp_path / "broken.ipynb"
    nbformat.write(content, path)
    monkeypatch.setattr(notebook, "notebook_file", lambda: path)
    monkeypatch.setattr(notebook, "repository_folder", lambda: tmp_path)
    assert notebook.main(["run", "-p", "x", "2"]) == 1
    kept = tmp_path / "runs" / "failed.ipynb"
    message = f"error: ZeroDivisionError: division by zero (the notebook up to there is {kept})\n"
    assert capsys.readouterr().err.endswith(message)
    assert "injected-parameters" in str(nbformat.read(kept, as_version=4).cells)
