"""The notebook executed without a browser, with other parameters than the committed ones.

A bad value is refused before a kernel starts, so what is slow to import is imported where it is needed.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from era_support_packages.bootstrap import repository_folder
from era_support_packages.notebook.parameters import Parameters, as_typed, parse
from era_support_packages.system.interrupts import Terminated, sigterm_interrupts
from era_support_packages.system.paths import expanded

GO_ON = "run again with the same values to go on after the last complete epoch"
REFUSALS = ("ParameterError", "RunError", "CheckpointError", "DatasetError")
"""in the cell tagged `configuration`: a value, a folder or a data set that cannot be used"""


class NotebookError(RuntimeError):
    """A cell of the notebook raised; the message is the last line of its traceback.

    `exit_code` is 2 for a bad value, 130 or 143 after Ctrl-C or SIGTERM, else 1.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def notebook_file() -> Path:
    """The committed notebook."""
    return repository_folder() / "notebooks" / "gradcam_cifar10.ipynb"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """While it lasts, relative paths mean what they will mean to the kernel."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def checked_parameters(pairs: Sequence[Sequence[str]]) -> Parameters:
    """Names and values of `-p NAME VALUE`; `ParameterError` for any that the notebook would refuse."""
    parameters = Parameters.collect(parse(pairs))
    with _inside(repository_folder()):
        parameters.check()
    return parameters


def execute(notebook: Path, parameters: Parameters, folder: Path) -> tuple[Path, Path]:
    """Execute a notebook with papermill from the repository's root; the executed copy, and the run's folder.

    What cells print and show appears while they run. The copy is written into `folder`, says what it is made with, and keeps the
    outputs up to a cell that fails. Raises `NotebookError` then.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from era_support_packages.notebook.terminal import printed

    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / f"executed-{os.getpid()}.ipynb"
    try:
        with sigterm_interrupts():
            with printed():
                result = papermill.execute_notebook(
                    *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, executed)),  # it formats them
                    parameters=parameters.for_papermill(),
                    cwd=str(repository_folder()),
                    progress_bar=False,
                    log_output=True,
                    kernel_name="python3",
                )
            from era_support_packages.notebook.executed import run_folder, say_what_made_it, seconds

            run = run_folder(result)
            say_what_made_it(executed, parameters, seconds(run, result))
    except papermill.PapermillExecutionError as error:
        raise _failed(executed, parameters, error.ename, error.evalue) from None
    except DeadKernelError:
        sentence = "the kernel ended without a word, as it does when memory runs out; run again with the same values to go on"
        raise _failed(executed, parameters, "Dead kernel", sentence) from None
    except KeyboardInterrupt as stop:
        raise _failed(executed, parameters, "Stopped", GO_ON, _exit_code(stop)) from None
    return executed, run


def _exit_code(stop: KeyboardInterrupt) -> int:
    return 143 if isinstance(stop, Terminated) else 130


def _failed(executed: Path, parameters: Parameters, name: str, sentence: str, exit_code: int = 1) -> NotebookError:
    """The error for a notebook that ended early, which is kept as failed.ipynb."""
    from era_support_packages.notebook.executed import failed_in, say_what_made_it

    if not executed.exists():  # it ended before the first cell
        return NotebookError(f"{name}: {sentence}", exit_code)
    kept = executed.with_name("failed.ipynb")
    os.replace(executed, kept)
    say_what_made_it(kept, parameters, f"**It ended early:** {as_typed(sentence, '-p')}")
    if name in REFUSALS and failed_in(kept, "configuration"):  # then the sentence stands alone, as before a kernel is started
        print(f"The notebook up to there is {kept}", file=sys.stderr)
        return NotebookError(sentence, exit_code=2)
    return NotebookError(f"{name}: {sentence} (the notebook up to there is {kept})", exit_code)


def run(pairs: Sequence[Sequence[str]]) -> str:
    """Execute the notebook with these parameters into its run's folder; returns where everything is."""
    parameters = checked_parameters(pairs)
    with sigterm_interrupts():
        executed, folder = execute(notebook_file(), parameters, repository_folder() / expanded(parameters.knobs["output_dir"]))
        target = folder / "notebook.ipynb"
        try:
            os.replace(executed, target)
            from era_support_packages.notebook.executed import to_html

            page = to_html(target)
        except KeyboardInterrupt as stop:
            if executed.exists():
                os.replace(executed, target)
            sentence = f"Stopped: the run is done, and its notebook is {target}, but the HTML page was not made"
            raise NotebookError(sentence, _exit_code(stop)) from None
    figures = "\n".join(f"  {path}" for path in sorted(folder.glob("*.png")))
    return f"\nnotebook  {target}\nHTML      {page}\nfigures\n{figures}"


def ended(work: Callable[[], str]) -> int:
    """Do the work of a command line and print what it returns, or the sentence of its error.

    Returns the exit code: 0, 1 where a cell failed, 2 for a bad value, 130 or 143 when stopped.
    """
    try:
        print(work())
    except ValueError as error:
        print(f"error: {as_typed(str(error), '-p')}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"error: {as_typed(str(error), '-p')}", file=sys.stderr)
        return error.exit_code
    return 0
