"""The upload button: both versions of ipywidgets, and Colab, which has a dialog of its own."""

import base64
import datetime
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebook_files import PIXEL

from era_support_packages.plots.photo_upload import PhotoUpload, uploaded_files

TAKEN = [("a cat.jpg", b"first"), ("b.png", b"second")]
SEVEN = {name: {"metadata": {"name": name, "size": len(content)}, "content": content} for name, content in TAKEN}
EIGHT = tuple(
    {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.datetime(2026, 11, 27, tzinfo=datetime.timezone.utc),
    }
    for name, content in TAKEN
)


def drawing(folder: Path, seen: list):
    """Writes a picture of a pixel for each file whose content is not "bad"."""
    picture = folder / "panel.png"
    picture.write_bytes(base64.b64decode(PIXEL))

    def draw(files):
        for file in files:
            seen.append((file.name, file.read_bytes()))
            if file.read_bytes() == b"bad":
                raise ValueError("It <cannot> be read: give another.")
            yield f"{file.name} < it", picture

    return draw


@pytest.mark.parametrize("value", [SEVEN, EIGHT], ids=["ipywidgets 7", "ipywidgets 8"])
def test_names_and_contents_are_read_from_either_version(value):
    assert uploaded_files(value) == TAKEN


def test_choosing_files_draws_them(tmp_path):
    seen = []
    upload = PhotoUpload(drawing(tmp_path, seen))
    is_seven = isinstance(upload.button.value, dict)
    upload.button.set_trait("value", SEVEN if is_seven else EIGHT)  # as the browser does
    assert seen == TAKEN
    text, picture, *_ = upload.results.children
    assert text.value == "a cat.jpg &lt; it"
    assert bytes(picture.value) == base64.b64decode(PIXEL)
    assert len(upload.results.children) == 4
    upload.take([("c.png", b"third")])  # in place of those of before
    assert len(upload.results.children) == 2


@pytest.mark.parametrize("name", ["../../up.png", "..\\up.png", "", "/etc/up.png"])
def test_a_name_leads_nowhere_else(name, tmp_path):
    seen = []
    PhotoUpload(drawing(tmp_path, seen)).take([(name, b"content")])
    assert seen == [("up.png" if "up" in name else "photo", b"content")]


def test_what_cannot_be_drawn_is_said_where_the_panel_would_be(tmp_path):
    upload = PhotoUpload(drawing(tmp_path, []))
    upload.take([*TAKEN[:1], ("b.png", b"bad")])
    assert [child.value for child in upload.results.children][0::2] == [
        "a cat.jpg &lt; it",
        "It &lt;cannot&gt; be read: give another.",
    ]


def test_in_colab_its_dialog_opens_when_the_button_is_pressed_and_not_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen, calls = [], []

    def dialog():
        calls.append(os.getcwd())
        Path("a cat.jpg").write_bytes(b"first")  # Colab's writes into the working folder too
        return dict(TAKEN)

    (tmp_path / "panels").mkdir()
    upload = PhotoUpload(drawing(tmp_path / "panels", seen), colab=SimpleNamespace(upload=dialog))
    assert calls == []
    upload.button.click()
    assert seen == TAKEN
    assert len(calls) == 1
    assert Path(calls[0]) != tmp_path
    assert os.getcwd() == str(tmp_path)
    assert not os.path.exists(calls[0])
    assert not upload.button.disabled
