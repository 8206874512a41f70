"""A notebook whose kernel dies or is asked to stop in the middle of training: nothing finished is lost."""

import json
import os
import signal
from pathlib import Path

import nbclient
import nbformat
import papermill
import pytest

pytestmark = pytest.mark.several

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "gradcam_cifar10.ipynb"
CHECKS = ("analyze_mistakes", "explore_methods", "check_faithfulness", "check_sanity", "plant_shortcut")

# Python imports a module of this name at its start, if it is on the path: the fault comes from outside of the package.
SITECUSTOMIZE = """
import os, sys

def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoint.pt"):
        with open(os.environ["CHECKPOINT_LOG"], "a") as log:
            print("checkpoint", file=log)
        with open(os.environ["CHECKPOINT_LOG"]) as log:
            if len(log.readlines()) == int(os.environ["DIE_AT_CHECKPOINT"]):
                os.kill(os.getpid(), int(os.environ["DIE_OF"]))

if "CHECKPOINT_LOG" in os.environ:
    sys.addaudithook(watch)
"""


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Execute the notebook with four small epochs and a signal before the k-th checkpoint has its name; how many there were."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)

    def run(
        output_dir: Path,
        executed: Path,
        die_at: int = 0,
        die_of: int = signal.SIGKILL,
        checks: bool = False,
        on_errors: bool = False,
    ) -> int:
        log = executed.with_suffix(".log")
        monkeypatch.setenv("CHECKPOINT_LOG", str(log))
        monkeypatch.setenv("DIE_AT_CHECKPOINT", str(die_at))
        monkeypatch.setenv("DIE_OF", str(int(die_of)))
        parameters = {
            "preset": "smoke",
            "dataset": "digits",
            "train_images": 256,  # no line of the parameters cell: papermill warns, and the notebook reads them all the same
            "resolutions": [[8, 0.25]] * 4,
            "mistakes": 2,
            "precision": "fp32",  # "auto" is timed, and may differ from run to run on a machine that does other work
            "run_name": "four",
            "output_dir": str(output_dir),
            **dict.fromkeys(CHECKS, checks),
        }
        try:
            papermill.execute_notebook(
                NOTEBOOK, executed, parameters, prepare_only=on_errors, cwd=ROOT, progress_bar=False, kernel_name="python3"
            )
            if on_errors:  # as a person does who runs the cells after one that failed
                content = nbformat.read(executed, as_version=4)
                nbclient.NotebookClient(content, allow_errors=True, resources={"metadata": {"path": ROOT}}).execute()
                nbformat.write(content, executed)
        finally:
            count = len(log.read_text().splitlines()) if log.exists() else 0
        return count

    return run


def table(executed: Path) -> list[str]:
    """The rows of the log that the training cell printed, without the column of seconds."""
    (cell,) = [cell for cell in nbformat.read(executed, as_version=4).cells if "train_or_stop(" in cell.source]
    lines = "".join(output.get("text", "") for output in cell.outputs).splitlines()
    return [line.rsplit(maxsplit=1)[0] for line in lines if line.split() and line.split()[0].isdigit()]


def printed(executed: Path) -> str:
    """All that the notebook printed, in one line: where a sentence is broken depends on the length of the folder's path."""
    cells = nbformat.read(executed, as_version=4).cells
    return " ".join(" ".join(output.get("text", "") for cell in cells for output in cell.get("outputs", [])).split())


def test_a_kernel_that_dies_in_epoch_two_of_four_loses_nothing(execute, tmp_path: Path) -> None:
    assert execute(tmp_path / "undisturbed", tmp_path / "undisturbed.ipynb") == 4
    undisturbed = table(tmp_path / "undisturbed.ipynb")
    assert [row.split()[0] for row in undisturbed] == ["1", "2", "3", "4"]

    with pytest.raises(nbclient.exceptions.DeadKernelError):
        execute(tmp_path / "runs", tmp_path / "killed.ipynb", die_at=2)
    assert len((tmp_path / "runs" / "four" / "metrics.csv").read_text().splitlines()) == 2  # heading and epoch 1

    assert execute(tmp_path / "runs", tmp_path / "resumed.ipynb") == 3  # epochs 2, 3 and 4
    assert table(tmp_path / "resumed.ipynb") == undisturbed
    going_on = f"Going on with {tmp_path / 'runs' / 'four'}: 1 of 4 epochs are done."
    assert going_on in printed(tmp_path / "resumed.ipynb")


def test_a_kernel_that_is_asked_to_stop_shows_what_is_finished_and_fails_at_the_end(execute, tmp_path: Path) -> None:
    folder, executed = tmp_path / "runs" / "four", tmp_path / "stopped.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        execute(tmp_path / "runs", executed, die_at=2, die_of=signal.SIGTERM)
    assert (raised.value.ename, raised.value.evalue) == (
        "RunError",
        "The run was stopped after epoch 1 of 4: run again to go on.",
    )
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    stopped = f"Stopped after epoch 1 of 4. Run again with the same values and run_name='four' to go on from there ({folder})."
    assert stopped in printed(executed)
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs) == 8
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["complete"], summary["epochs"], summary["test_accuracy"]) == (False, 1, None)


def test_where_no_epoch_was_complete_each_later_cell_says_so_in_one_sentence(execute, tmp_path: Path) -> None:
    executed = tmp_path / "stopped.ipynb"
    execute(tmp_path / "runs", executed, die_at=1, die_of=signal.SIGTERM, checks=True, on_errors=True)
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    (training,) = [number for number, cell in enumerate(cells) if "train_or_stop(" in cell.source]
    errors = [[output for output in cell.outputs if output.output_type == "error"] for cell in cells]
    assert not any(errors[:training])
    assert [error.ename for error in errors[training]] == ["RunStopped"]
    assert {error.ename for found in errors[training + 1 :] for error in found} == {"NotTrainedError"}
    assert all(errors[training + 1 : -1])  # the last one lists the files before it says so
    for error in (error for found in errors for error in found):
        assert " ".join(error.traceback) == error.evalue
        assert "run the training cell again, then those after it." in error.evalue
    assert not any("image/png" in output.get("data", {}) for cell in cells[training:] for output in cell.outputs)
