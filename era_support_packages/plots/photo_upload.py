"""A button in a notebook that takes photos from the person's own computer, and shows what is made of each."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from era_support_packages.evaluation.tables import text_html
from era_support_packages.plots.explorer_panel import WIDGET_VIEW

STAND_IN = "Run this cell to get a button that takes photos from your computer."
BUTTON = "Your own photos"
Draw = Callable[[Sequence[Path]], Iterable[tuple[str, Path | None]]]


class PhotoUpload:
    """An upload button; `draw` gets the files, and gives for each a sentence and the PNG file of a figure, or None.

    In Jupyter it is the upload button of ipywidgets. Colab loses photos over 1 MB there, so that its own dialog opens behind the
    button, and never before it is pressed: it would keep the cell waiting. `widget` is the button with what was drawn below it;
    `show` displays it.

    colab: the module `google.colab.files`; None looks for it.

    >>> from era_support_packages import plots
    >>> upload = plots.PhotoUpload(lambda files: [(f"{file.name} has come.", None) for file in files])
    >>> upload.take([("cat.jpg", b"the bytes of a photo")])  # as choosing a file does; in a notebook upload.show() displays it
    >>> upload.results.children[0].value
    'cat.jpg has come.'
    """

    def __init__(self, draw: Draw, colab: Any = None) -> None:
        import ipywidgets

        self.draw = draw
        self.colab = colab if colab is not None else _colab_files()
        self.results = ipywidgets.VBox()
        self.dialog = ipywidgets.Output()  # Colab's dialog opens in it
        layout = ipywidgets.Layout(width="auto")
        self.button: Any
        if self.colab is None:
            self.button = ipywidgets.FileUpload(accept="image/*", multiple=True, description=BUTTON, layout=layout)
            self.button.observe(self._uploaded, names="value")
        else:
            self.button = ipywidgets.Button(description=BUTTON, icon="upload", layout=layout)
            self.button.on_click(self._pressed)
        # The button keeps the width of its words.
        self.widget = ipywidgets.VBox([ipywidgets.HBox([self.button]), self.dialog, self.results])

    def _uploaded(self, change: Mapping[str, Any]) -> None:
        if change["new"]:
            self.take(uploaded_files(change["new"]))

    def _pressed(self, _: Any) -> None:
        self.button.disabled = True
        try:
            with self.dialog, _in_empty_folder():  # it writes what it takes into the working folder
                given = self.colab.upload()
                self.dialog.clear_output()
        finally:
            self.button.disabled = False
        self.take(list(given.items()))

    def take(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Draw photos that were uploaded, given as their names and contents, in place of those of before."""
        from ipywidgets import HTML

        self.results.children = (HTML(f"Looking at {len(files)} photo{'s' * (len(files) != 1)} ..."),)
        with tempfile.TemporaryDirectory() as folder:
            found: list[Any] = []
            try:
                for text, picture in self.draw(_written(files, Path(folder))):
                    found += [HTML(text_html(text)), *([] if picture is None else [_image(picture)])]
            except Exception as error:  # nobody sees what a widget's own function raises
                found.append(HTML(text_html(str(error) or type(error).__name__)))
            self.results.children = tuple(found)

    def show(self) -> None:
        """Display the button; where widgets are not shown (a saved page, an export), a sentence says how to get it."""
        from IPython.display import display

        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"text/plain": STAND_IN, WIDGET_VIEW: view}, raw=True)


def uploaded_files(value: Any) -> list[tuple[str, bytes]]:
    """Names and contents in the value of an ipywidgets `FileUpload`: a dict by name in version 7, a tuple of dicts from 8 on."""
    if isinstance(value, Mapping):
        return [(str(name), bytes(file["content"])) for name, file in value.items()]
    return [(str(file["name"]), bytes(file["content"])) for file in value]


def _written(files: Sequence[tuple[str, bytes]], folder: Path) -> list[Path]:
    """The files as such, each in a folder of its own, so that equal names do no harm."""
    found = []
    for number, (name, content) in enumerate(files):
        file = folder / str(number) / (Path(name.replace("\\", "/")).name or "photo")
        file.parent.mkdir()
        file.write_bytes(content)
        found.append(file)
    return found


def _image(picture: Path) -> Any:
    import ipywidgets

    return ipywidgets.Image(value=picture.read_bytes(), format="png", layout=ipywidgets.Layout(max_width="100%"))


def _colab_files() -> Any:
    try:
        from google.colab import files
    except ImportError:
        return None
    return files


@contextlib.contextmanager
def _in_empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
