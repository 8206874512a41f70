"""Showing and saving figures."""

import base64
import os
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from era_support_packages import plots
from era_support_packages.plots import style


def a_figure() -> Figure:
    return plots.image_grid(np.zeros((1, 8, 8, 3), np.uint8), ["cat"], "A title")


def test_save_writes_a_png_of_the_asked_resolution_into_new_folders(tmp_path) -> None:
    figure = a_figure()
    path = plots.save(figure, tmp_path / "runs" / "one" / "grid.png")
    assert path == tmp_path / "runs" / "one" / "grid.png"
    with Image.open(path) as written:
        assert written.format == "PNG"
        assert written.size == pytest.approx(tuple(150 * side for side in figure.get_size_inches()), abs=1)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_signs_that_no_font_has_are_told_of_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(style, "families", lambda: [style.FAMILY])
    style._warn_of_missing_glyphs.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("one.png", "other.png"):
            figure = plots.image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["\u732b", "\u72ac \U0001f338"], "A title")
            plots.save(figure, tmp_path / name)
    [said] = [str(warning.message) for warning in caught]
    assert "install one that has them, such as Noto Sans CJK" in said


def test_the_fonts_of_other_scripts_are_taken_where_they_are_installed(monkeypatch) -> None:
    monkeypatch.setattr(style, "OTHER_FAMILIES", ("Not There Sans", "cmr10"))
    style.families.cache_clear()
    try:
        assert style.families() == ["DejaVu Sans", "cmr10"]
        figure = a_figure()
        assert figure.axes[0].title.get_fontfamily() == ["DejaVu Sans", "cmr10"]
    finally:
        style.families.cache_clear()


def test_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def failing(source, target) -> None:
        assert source.read_bytes()[:4] == b"\x89PNG", "from a whole file in one step"
        raise OSError("no permission")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no permission"):
        plots.save(a_figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_asks_for_a_png() -> None:
    with pytest.raises(ValueError, match=r"^figure\.jpg cannot be written: .*, so the name must end in \.png\.$"):
        plots.save(Figure(), "figure.jpg")


@pytest.mark.unhurried
def test_show_displays_a_png_in_a_kernel_that_has_no_inline_backend_and_nothing_elsewhere(request, capsys) -> None:
    plots.show(a_figure())
    assert capsys.readouterr() == ("", "")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    source = (
        "import sys, numpy as np; from era_support_packages import plots\n"
        "figure = plots.image_grid(np.zeros((1, 8, 8, 3), np.uint8), ['cat'], 'A title')\n"
        "pyplot = sys.modules.get('matplotlib.pyplot')  # pytorch-grad-cam imports it; nothing here draws with it\n"
        "plots.show(figure); print(bool(pyplot and pyplot.get_fignums()))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    resources = {"metadata": {"path": str(request.config.rootpath)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, timeout=60).execute()
    picture, printed = notebook.cells[0].outputs
    assert (picture.output_type, printed.text) == ("display_data", "False\n"), "no global figures"
    assert picture.data["image/png"].startswith("iVBORw0KGgo"), "the first bytes of a PNG in base64"
    assert picture.metadata["image/png"] == {"alt": "A title", "width": 420}, "4.2 inches"


def test_a_picture_drawn_before_is_shown_as_it_is_and_as_wide_as_one_drawn_for_the_page() -> None:
    figure = a_figure()
    drawn = style.png(figure, dpi=150)
    data, metadata = style.picture_bundle(figure, picture=drawn)
    assert base64.b64decode(data["image/png"]) == drawn
    assert metadata == style.picture_bundle(figure)[1] == {"image/png": {"alt": "A title", "width": 420}}
    assert style.picture_bundle(figure, dpi=50)[1]["image/png"]["width"] == 210
