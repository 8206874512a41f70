"""The progress bar: seen while it runs, and gone afterwards, from a terminal and from a saved notebook."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from tqdm import tqdm

from era_support_packages.system.progress import in_notebook, progress_bar

ROOT = Path(__file__).resolve().parents[2]


def screen(output: str) -> list[str]:
    """The lines a terminal shows after this output; knows carriage return, line feed and cursor up."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[A|.|\r|\n", output):
        if token == "\x1b[A":
            row -= 1
        elif token in "\r\n":
            row, column = row + (token == "\n"), 0
            lines += [""] * (row + 1 - len(lines))
        else:
            padded = lines[row].ljust(column + 1)
            lines[row] = padded[:column] + token + padded[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@contextlib.contextmanager
def terminal():
    """A terminal of 80 columns as standard output and error: a function that reads what was written to it."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(main, False)
    with os.fdopen(end, "w", buffering=1) as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):

        def read() -> str:
            stream.flush()
            parts = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    parts.append(os.read(main, 65_536))
            return b"".join(parts).decode()

        yield read
    os.close(main)


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_in_a_terminal_rows_printed_meanwhile_stay_and_the_bar_goes_also_after_an_error(error):
    with terminal() as written:
        with contextlib.suppress(ZeroDivisionError), progress_bar(4, "testing", unit="img") as bar:
            for row in range(2):
                bar.update(2)
                bar.refresh()
                during = written()
                assert screen(during)[-1].startswith(f"testing: {50 * (row + 1):3d}%|")
                assert f"{2 * (row + 1)}/4 [" in during
                bar.clear()
                print(f"row {row}")
                assert screen(during + written()) == [f"row {row}", ""]
            bar.refresh()
            if error:
                raise error
        assert screen(written()) == [""]
    assert type(bar) is tqdm


def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch):
    for shell, expected in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() is expected
    monkeypatch.delitem(sys.modules, "IPython")
    assert in_notebook() is False
    assert "IPython" not in sys.modules


CELLS = (
    """
from era_support_packages.system.progress import in_notebook, progress_bar
print(in_notebook())
with progress_bar(10, "training", unit="img") as bar:
    bar.update(5)
    bar.refresh()
    bar.clear()
    print("row 0")
    bar.set_postfix_str("loss 1.25", refresh=False)
    bar.update(5)
    bar.refresh()
print("done")
""",
    """
with progress_bar(8, "failing") as bar:
    bar.update(2)
    bar.refresh()
    1 / 0
""",
)


class RecordingClient(NotebookClient):
    """Keeps the text of every display and update that the kernel sends."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.seen.append(msg["content"]["data"].get("text/plain"))
        return super().process_message(msg, cell, cell_index)


def test_a_saved_notebook_holds_nothing_of_the_bar(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = RecordingClient(notebook, timeout=120, kernel_name="python3", allow_errors=True)
    client.seen = []
    client.execute()
    for shown in ("training:  50%|", "10/10 [", "loss 1.25", "failing:  25%|"):
        assert shown in "\n".join(client.seen)

    first, second = (cell["outputs"] for cell in notebook.cells)
    assert "".join(output["text"] for output in first if output["output_type"] == "stream") == "True\nrow 0\ndone\n"
    assert {output["output_type"] for output in first} <= {"stream", "display_data"}
    assert [output["ename"] for output in second if output["output_type"] == "error"] == ["ZeroDivisionError"]
    shown = [output["data"] for output in first + second if output["output_type"] == "display_data"]
    assert all(data == {"text/plain": ""} for data in shown)
