"""The committed notebook is as it should be, and its headless runner does what it says."""

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import papermill
import pytest
from notebook_files import NOTEBOOK, PIXEL, code_cells, displayed, read, small_notebook, tagged
from tiny import colored_images

import era_support_packages
from era_support_packages.notebook import __main__ as notebook, executed as executed_notebook, execution, provenance
from era_support_packages.notebook.parameters import KNOBS, Parameters
from era_support_packages.plots.explorer_panel import WIDGET_VIEW
from era_support_packages.runs.folder import Run
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.resolution import resolve

ROOT = Path(__file__).parents[2]
SUMMARY = Path(__file__).parents[1] / "support" / "resnet18_summary.txt"


@pytest.fixture(scope="module")
def committed():
    return read()


def longest_lines(content):
    """The lines over 100 characters in what wraps nowhere: prints and the text of outputs."""
    outputs = [output for cell in code_cells(content) for output in cell.outputs]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return [line for text in texts for line in text.splitlines() if len(line) > 100 and " " in line.strip()]


# ---- the committed file ----------------------------------------------------------------------------------------------


def test_the_parameters_cell_holds_values_that_papermill_reads(committed):
    (cell,) = tagged(committed, "parameters")
    lines = [line for line in cell.source.splitlines() if line]
    assignments = [line for line in lines if not line.startswith("#")]
    assert len(lines) - len(assignments) == 4  # groups: data, run, training, checks
    assert all(re.fullmatch(r"\w+: (str|int|float|bool|dict) = .+  # .+", line) for line in assignments)
    names = list(papermill.inspect_notebook(str(NOTEBOOK)))
    assert names == [line.split(":")[0] for line in assignments]
    assert sorted(names) == sorted([*KNOBS, "more"])
    # continuous integration stays small
    assert cell.metadata["nbmake"]["mock"] == {"preset": "smoke", "dataset": "digits", "output_dir": "runs/smoke"}


def test_nothing_of_the_run_that_made_it_is_left_behind(committed):
    assert not tagged(committed, "injected-parameters")
    assert "papermill" not in committed.metadata
    assert not any({"papermill", "execution"} & set(cell.metadata) for cell in committed.cells)
    text = NOTEBOOK.read_text()
    assert str(ROOT) not in text
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)
    assert WIDGET_VIEW not in text
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_it_carries_the_outputs_of_one_run_in_order(committed):
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    # augmentation, range test, log, confusion, classes, wrong predictions, four of mistakes, Grad-CAM twice, the explorer,
    # faithfulness twice, sanity check twice, the planted shortcut
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 18
    assert longest_lines(committed) == []
    (prose,) = tagged(committed, "made-with")
    assert re.search(r"one real run with `\w+ = .+Data: .+; hardware: .+; PyTorch [\d.]+.*; \d{4}-\d\d-\d\d; ", prose.source)
    assert prose.source.startswith("The outputs saved in this file ")  # true also while somebody runs the page
    assert prose.source.endswith(" Yours replace them as you run the cells, and section 3 says what yours are made with.")
    (summary,) = [cell for cell in cells if "model_summary(network" in cell.source]  # the original's, to the character
    assert summary.outputs[0].text.rstrip("\n") == SUMMARY.read_text().rstrip("\n")


def test_it_is_short_to_read_and_uses_the_public_face_alone(committed):
    (parameters,), (bootstrap,) = tagged(committed, "parameters"), tagged(committed, "bootstrap")
    assert len(committed.cells) <= 40
    lines = {cell.id: cell.source.splitlines() for cell in code_cells(committed)}
    assert {name for name, found in lines.items() if len(found) > 8} <= {parameters.id, bootstrap.id}
    del lines[bootstrap.id]
    told = [line for found in lines.values() for line in found]
    (found,) = [line for line in told if re.match(r"\s*(import|from)\b", line)]
    assert set(found.removeprefix("from era_support_packages import ").split(", ")) <= set(era_support_packages.__all__)
    assert [line for line in told if re.search(r"[a-z]\._[a-z]", line)] == []


def test_the_badge_opens_this_notebook(committed):
    link = "https://colab.research.google.com/github/sushant097/era_support_packages/blob/main/notebooks/gradcam_cifar10.ipynb"
    assert f"({link})" in committed.cells[0].source
    assert f"({link})" in (ROOT / "README.md").read_text()


# ---- parameters on the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("epochs", "-3", "epochs is -3; give a whole number from 1 to 10000."),
        ("max_lr", "-1e-3", "max_lr is -0.001; give a number above 0 and up to 100, or 'auto' for the range test's suggestion."),
        ("epoch", "3", "Unknown parameter 'epoch': did you mean 'epochs' or 'max_epochs'?"),
        ("label_smooting", "0.1", "Unknown parameter 'label_smooting': did you mean 'label_smoothing'?"),
        ("more", '{"whitning": true}', "Unknown parameter 'whitning' in more: did you mean 'whitening'?"),
        ("seed", "first", "seed is 'first'; give a whole number from 0 to 4294967295."),
        ("dataset", "no/such", "Unknown data set 'no/such': give one of auto, cifar10, cifar100, digits, or a path"),
        ("dataset", ".", "{folder} holds no class folders: a folder of images has <class>/ or train/<class>/"),
        ("data_root", "no/such", "data_root is 'no/such', but there is no such folder: make it, or give one that is there."),
        ("finished_run", "no/such", "finished_run is 'no/such', but there is no such folder: give that of a run."),
        ("method", "gradcma", "method is 'gradcma': did you mean 'gradcam' or 'xgradcam' or 'gradcam++'?"),
        ("check_sanity", "maybe", "check_sanity is 'maybe'; give True or False."),
    ],
)
def test_a_bad_value_ends_with_its_sentence_before_a_kernel_starts(name, value, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(execution, "execute", lambda *_: pytest.fail("the notebook was executed"))
    monkeypatch.setattr(execution, "repository_folder", lambda: tmp_path)
    assert notebook.main(["run", "-p", name, value]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {sentence.format(folder=tmp_path)}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("era_support_packages", ["--epochs", "-3"], "--epochs is -3; give a whole number from 1 to 10000."),
        ("era_support_packages.notebook", ["run", "-p", "epochs", "-3"], "epochs is -3; give a whole number from 1 to 10000."),
        (
            "era_support_packages.notebook",
            ["run", "-p", "finished_run", "docs"],
            "docs is not the folder of a finished run: it has no checkpoint.pt; give one that has, or train a new one.",
        ),
    ],
)
def test_a_bad_value_does_not_wait_for_pytorch(module, arguments, sentence):
    """What makes it quick: nothing that is slow to import is, so that the sentence is there in a second or two."""
    code = (
        "import runpy, sys\n"
        f"sys.argv[1:] = {arguments!r}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "finally: print(sorted({'torch', 'matplotlib', 'pytorch_grad_cam', 'papermill'} & set(sys.modules)))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "[]\n", f"error: {sentence}\n")


# ---- an executed copy -----------------------------------------------------------------------------------------------


def test_without_a_kernel_the_picture_of_a_panel_is_shown():
    source = small_notebook()
    source.cells[2].outputs = displayed({WIDGET_VIEW: {"model_id": "1"}, "image/png": PIXEL, "text/plain": "panel"})
    source.metadata["widgets"] = {"state": {}}
    result = executed_notebook.without_widgets(source)
    assert result.cells[2].outputs[0].data == {"image/png": PIXEL, "text/plain": "panel"}
    assert "widgets" not in result.metadata
    assert WIDGET_VIEW in source.cells[2].outputs[0].data


def test_tables_sentences_and_the_stand_in_of_a_panel_are_kept_in_the_page(tmp_path):
    executed = read()
    code_cells(executed)[-1].outputs = displayed(
        {"text/html": "<table><tr><td>a cell</td></tr></table>", "text/plain": "a cell"},
        {"text/markdown": "a *sentence*", "text/plain": "a sentence"},
        {WIDGET_VIEW: {"model_id": "1"}, "text/plain": "Run this cell."},
    )
    nbformat.write(executed, tmp_path / "page.ipynb")
    page = executed_notebook.to_html(tmp_path / "page.ipynb").read_text()
    for text in ("<td>a cell</td>", "a <em>sentence</em>", "<pre>Run this cell.</pre>"):
        assert text in page


def test_a_page_has_the_title_of_its_run_and_a_picture_that_of_its_figure(tmp_path):
    executed = small_notebook()
    picture = {"image/png": PIXEL, "text/plain": "figure"}
    executed.cells[2].outputs = displayed(picture, picture)
    executed.cells[2].outputs[0].metadata = {"image/png": {"alt": "Maps of <cats>", "width": 7}}
    nbformat.write(executed, tmp_path / "page.ipynb")
    page = executed_notebook.to_html(tmp_path / "page.ipynb").read_text()
    assert f"<title>{tmp_path.name}</title>" in page, "the run's folder"
    titled, other = re.findall("<img [^>]*data:image/png[^>]*>", page)
    assert 'alt="Maps of &lt;cats&gt;"' in titled
    assert 'width="7"' in titled
    assert 'alt=""' in other


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run that may have been trained on another machine than the one that draws its figures."""
    monkeypatch.setattr(provenance, "describe", lambda device: "another computer")
    monkeypatch.setattr(provenance, "versions", lambda: {"torch": "2.9.1"})
    run = Run(tmp_path)
    given = {"dataset": "pets", "train_images": 500, "max_lr": 0.2, "device": "cpu", "precision": "fp32", "workers": 0}
    run.write_config(resolve(TrainingConfig.preset("cpu", **given, horizontal_flip=0.5), colored_images(3)))
    run.write_json("summary.json", {"dataset": "pets", "hardware": "a computer", "versions": {"torch": "2.6.0"}, "seconds": 75})
    return run


class Prepared:
    """As much of a prepared run as its provenance asks for."""

    def __init__(self, run):
        self.run, self.config = run, run.config()
        self.train = colored_images(6)


FINISHED = "was finished before (on a computer with PyTorch 2.6.0, in 1 min 15 s) and is shown here."


@pytest.mark.parametrize(
    ("given", "done", "values", "how"),
    [
        ({"preset": "cpu", "seed": 3}, 0, "`preset = 'cpu'`, `seed = 3`", "is trained here."),
        ({}, 0, "`preset = 'cpu'`", "is trained here."),  # what "auto" is here
        ({"cutout": 4}, 2, "`preset = 'cpu'`, `cutout = 4`", "was begun before and goes on here after epoch 2."),
        (
            {"finished_run": "x"},
            4,
            "`preset = 'cpu'`, `dataset = 'pets'`, `train_images = 500`, `max_lr = 0.2`",
            FINISHED,
        ),
    ],
)
def test_section_3_says_what_the_outputs_are_made_with(given, done, values, how, finished, monkeypatch):
    monkeypatch.setattr(Run, "complete_epochs", lambda run: done)
    monkeypatch.setattr(Run, "finished", property(lambda run: done == 4))
    said = provenance.of_run(Parameters(given), Prepared(finished))
    assert said._repr_markdown_().startswith(
        f"These outputs are made with {values}; every other value is the preset's or the parameters cell's. Data: colours; "
        "hardware: another computer; PyTorch 2.9.1; 2"
    )
    assert said._repr_markdown_().endswith(f"the run `{finished.folder}` {how}")
    plain = repr(said)
    assert "".join(plain.split()) == "".join(said.sentence.replace("`", "").split())
    assert max(len(line) for line in plain.splitlines() if str(finished.folder) not in line) <= 100


# ---- run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch) -> Callable[..., None]:
    """In place of the committed notebook, one of the cells that `fill` is given, in a repository of its own."""
    path = tmp_path / "small.ipynb"
    for module in (execution, executed_notebook):
        monkeypatch.setattr(module, "repository_folder", lambda: tmp_path)
    monkeypatch.setattr(execution, "notebook_file", lambda: path)
    monkeypatch.setattr(provenance, "describe", lambda device: "another computer")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def fill(head=None, **cells):
        source = small_notebook()
        source.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        source.cells[2:] = [nbformat.v4.new_code_cell(text, metadata={"tags": [tag]}) for tag, text in cells.items()]
        source.cells[:1] = head or source.cells[:1]
        nbformat.write(source, path)

    return fill


@pytest.fixture
def mine(tmp_path) -> Path:
    """The folder of a run that took 75 seconds."""
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "summary.json").write_text('{"seconds": 75}')
    return run


def failed(tmp_path):
    content = read(tmp_path / "runs" / "failed.ipynb")
    (words,) = tagged(content, "made-with")
    return content, words.source


def test_a_folder_with_braces_is_a_folder(small, tmp_path):
    small(later="1 / 0")
    assert notebook.main(["run", "-p", "dataset", "digits", "-p", "output_dir", "runs/{a}{}"]) == 1
    assert (tmp_path / "runs" / "{a}{}" / "failed.ipynb").is_file()


def test_a_failing_cell_is_reported_and_its_notebook_kept(small, tmp_path, capsys):
    small(later="1 / 0")
    assert notebook.main(["run", "-p", "dataset", "digits", "-p", "seed", "2"]) == 1
    kept = f"(the notebook up to there is {tmp_path / 'runs' / 'failed.ipynb'})"
    assert capsys.readouterr().err.endswith(f"error: ZeroDivisionError: division by zero {kept}\n")
    content, words = failed(tmp_path)
    assert "injected-parameters" in str(content.cells)
    assert words.startswith("This notebook was run with `dataset = 'digits'`, `seed = 2`; every other value is the preset's")
    assert "Hardware: another computer; PyTorch " in words
    assert words.endswith(". **It ended early:** division by zero")


SAYS = "from IPython.display import Markdown, display; display(Markdown('These outputs are made with A.'))\n"
REFUSES = "from era_support_packages.runs.folder import RunError; raise RunError('{}')"


@pytest.mark.unhurried
def test_a_run_that_the_notebook_refuses_ends_like_a_bad_value(small, tmp_path, capsys):
    """A name that belongs to other values, for example, which is known only when the data is there."""
    sentence = "It is the run of another configuration: give another name."
    small(configuration=SAYS + REFUSES.format(sentence))
    assert notebook.main(["run", "-p", "dataset", "digits"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {sentence}"
    content, words = failed(tmp_path)
    assert words == f"These outputs are made with A. **It ended early:** {sentence}"
    (error,) = [output for cell in code_cells(content) for output in cell.outputs if output.output_type == "error"]
    assert error.traceback == [sentence]


@pytest.mark.unhurried
def test_a_run_that_was_stopped_is_no_bad_value(small, tmp_path, capsys):
    sentence = "The run was stopped after epoch 1 of 4: run again to go on."
    small(configuration=SAYS, files=REFUSES.format(sentence))
    assert notebook.main(["run", "-p", "dataset", "digits"]) == 1
    kept = tmp_path / "runs" / "failed.ipynb"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: RunError: {sentence} (the notebook up to there is {kept})"
    assert failed(tmp_path)[1] == f"These outputs are made with A. **It ended early:** {sentence}"


RUNNER = """
import signal, sys
from pathlib import Path
from era_support_packages.notebook import __main__ as notebook, executed, execution
folder = Path(sys.argv[1])
for module in (execution, executed):
    module.repository_folder = lambda: folder
execution.notebook_file = lambda: folder / "small.ipynb"
if len(sys.argv) > 2:  # the function in which SIGTERM arrives
    setattr(executed, sys.argv[2], lambda *_: signal.raise_signal(signal.SIGTERM))
sys.exit(notebook.main(["run", "-p", "dataset", "digits"]))
"""
TO_GO_ON = "run again with the same values to go on after the last complete epoch"


def run_and_stop(*arguments):
    """The runner in a process of its own: the signal goes to whoever runs the notebook."""
    command = [sys.executable, "-c", RUNNER, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.unhurried
@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_runner_itself_can_be_stopped(name, exit_code, small, tmp_path):
    small(configuration=SAYS, later=f"import os, signal, time; os.kill(os.getppid(), signal.{name}); time.sleep(60)")
    ended = run_and_stop(tmp_path)
    assert ended.returncode == exit_code, ended.stderr
    kept = tmp_path / "runs" / "failed.ipynb"
    # older versions of asyncio and zmq say more of what they left when the process ends
    assert f"error: Stopped: {TO_GO_ON} (the notebook up to there is {kept})" in ended.stderr.splitlines()
    assert failed(tmp_path)[1] == f"These outputs are made with A. **It ended early:** {TO_GO_ON}"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["failed.ipynb"]


@pytest.mark.unhurried
@pytest.mark.parametrize(
    ("place", "kept", "sentence"),
    [
        ("seconds", "failed.ipynb", f"{TO_GO_ON} (the notebook up to"),
        ("to_html", "mine/notebook.ipynb", "the run is done, and its notebook is"),
    ],
)
def test_a_runner_stopped_after_the_last_cell_leaves_its_notebook_under_its_name(place, kept, sentence, small, tmp_path, mine):
    small(configuration=SAYS, files="print('Everything is in runs/mine')")
    ended = run_and_stop(tmp_path, place)
    assert ended.returncode == 143, ended.stderr
    assert f"error: Stopped: {sentence}" in ended.stderr
    assert [path.relative_to(mine.parent).as_posix() for path in mine.parent.rglob("*.ipynb")] == [kept]


class Page(HTMLParser):
    """The text that a reader of an HTML page sees, without styles and scripts."""

    def __init__(self, page):
        super().__init__()
        self.text, self.hidden = "", 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.hidden += tag in ("style", "script", "title")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script", "title")

    def handle_data(self, data):
        self.text += "" if self.hidden else data


@pytest.mark.unhurried
def test_the_html_of_a_users_run_names_its_values_and_machine_in_its_first_screen(small, committed, mine, capsys):
    configuration = (
        "from era_support_packages.notebook.provenance import Provenance\n"
        "Provenance(f'These outputs are made with `seed = {seed}`. Data: pets; hardware: a machine.')"
    )
    # the head of the committed page tells of the committed outputs
    small(committed.cells[:3], configuration=configuration, files="print('Everything is in runs/mine')")
    assert notebook.main(["run", "-p", "dataset", "digits", "-p", "seed", "2"]) == 0
    assert f"HTML      {mine / 'notebook.html'}" in capsys.readouterr().out
    text = " ".join(Page((mine / "notebook.html").read_text()).text.split())
    said = "These outputs are made with seed = 2. Data: pets; hardware: a machine. Training took 1 min 15 s, the whole "
    assert said in text[:1200]  # with its title and a button, a screen of 1,000 x 800 px holds more than that
    assert committed.cells[1].source.split(";")[0].replace("`", "") not in text
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]
