"""A progress bar that leaves nothing behind: tqdm in a terminal, one updated line in a notebook."""

import sys
from typing import Any

from tqdm import tqdm


def in_notebook() -> bool:
    """Whether this process is a Jupyter or Colab kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class _NotebookBar(tqdm):
    """tqdm that redraws one display in place, so that a saved notebook keeps no trace of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(*args, **{**kwargs, "ncols": 100, "file": sys.stdout, "gui": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        text = str(self) if msg is None else msg
        self._handle.update({"text/plain": text}, raw=True)

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to clear: each update replaces the line."""

    def close(self) -> None:
        if not self.disable:
            self.disable: bool = True
            self._decr_instances(self)
            self._handle.update({"text/plain": ""}, raw=True)


def progress_bar(total: float | None, description: str = "", unit: str = "it", **options: Any) -> tqdm:
    """A bar of `total` units, refreshed at most twice a second, that vanishes when it is closed.

    None is a total that nobody knows: then there is no time left. options: further ones of tqdm.
    """
    kind = _NotebookBar if in_notebook() else tqdm
    options |= {"leave": False, "mininterval": 0.5, "dynamic_ncols": not in_notebook()}
    return kind(total=total, desc=description, unit=unit, **options)


class TextBar:
    """A bar that another process draws, shown here by the text that it writes: in a notebook in one display, else on stderr."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __enter__(self) -> "TextBar":
        if in_notebook():
            from IPython.display import display

            self._handle = display({"text/plain": ""}, raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def write(self, text: str) -> None:
        """Show what the bar writes."""
        if self._handle is None:
            sys.stderr.write(text)
            sys.stderr.flush()
        elif shown := text.strip("\r\n "):
            self._handle.update({"text/plain": shown}, raw=True)

    def clear(self) -> None:
        """Leave no trace of it."""
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)
