"""Section 17: a person's own photos, named in the parameters or taken by a button."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from tiny import CLASSES, MEAN, STD, colored_images, tiny_network

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.notebook import own_photos
from era_support_packages.notebook.page import Page
from era_support_packages.notebook.parameters import ParameterError, Parameters, parse
from era_support_packages.runs.folder import Run
from era_support_packages.runs.photos import kept_temperature

CLASSIFIER = Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=8)


@pytest.fixture
def page(tmp_path):
    (tmp_path / "run").mkdir()
    return Page(SimpleNamespace(run=Run(tmp_path / "run"), train=colored_images(3)))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in (("red", (200, 20, 20)), ("green", (20, 200, 20))):
        Image.new("RGB", (40, 30), color).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def buttons(monkeypatch):
    """Somebody sits at the notebook; the buttons that they see."""
    shown = []
    monkeypatch.setattr(own_photos, "is_interactive", lambda: True)
    monkeypatch.setattr(plots.PhotoUpload, "show", lambda upload: shown.append(upload))
    return shown


def pictures(page):
    return sorted(path.name for path in page.prepared.run.folder.glob("*.png"))


def test_a_figure_is_shown_as_it_is_kept(page, monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "show", lambda figure, picture: seen.append((figure, picture)))
    figure = plots.image_grid(np.zeros((1, 8, 8, 3), np.uint8), ["cat"], "A title")
    page.figure(figure, "cat.png")
    assert seen == [(figure, (page.prepared.run.folder / "cat.png").read_bytes())]


def test_without_a_photo_a_line_says_how_to_give_one_and_nobody_gets_a_button(page, capsys, monkeypatch):
    monkeypatch.setattr(plots.PhotoUpload, "show", lambda _: pytest.fail("a button was drawn"))
    page.own_photos(CLASSIFIER, None)
    said = " ".join(capsys.readouterr().out.split())
    assert said == own_photos.NONE_GIVEN
    assert "Set photo in section 1" in said
    assert "-p photo FILE" in said


def test_a_folder_gives_a_panel_each_and_names_what_cannot_be_read(page, photos, capsys):
    page.own_photos(CLASSIFIER, str(photos))
    assert pictures(page) == ["photo_green.png", "photo_red.png"]
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 3 photos could not be read" in said
    assert "broken.jpg" in said
    assert "uncalibrated" in said


def test_of_very_many_the_first_are_drawn_and_a_command_is_named_for_all(page, photos, capsys, monkeypatch):
    monkeypatch.setattr(own_photos, "MOST", 2)
    page.own_photos(CLASSIFIER, [str(photos / "red.png"), str(photos)])
    assert pictures(page) == ["photo_red.png"]  # the second is the broken one
    said = " ".join(capsys.readouterr().out.split())
    assert "the first 2 of 3 photos" in said
    assert f"era_support_packages explain {page.prepared.run.folder} FOLDER" in said


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_a_button_draws_what_it_takes_with_the_temperature_of_the_run(temperature, page, photos, buttons):
    (page.prepared.run.folder / "summary.json").write_text(json.dumps({"temperature": temperature}))
    page.own_photos(CLASSIFIER, None)
    (button,) = buttons
    taken = [(name, (photos / name).read_bytes()) for name in ("red.png", "broken.jpg")]
    button.take([*taken, taken[0]])  # the same name twice
    texts = [child.value.replace("\N{NO-BREAK SPACE}", " ") for child in button.results.children if isinstance(child.value, str)]
    logits = CLASSIFIER.predict(photos / "red.png").logits[0].astype(float)
    likeliest = f"{CLASSES[logits.argmax()]} {100 * softmax(logits / (temperature or 1)).max():.1f} %"
    assert texts[0].startswith(f"red.png: {likeliest}, ")
    assert "broken.jpg" in texts[1]
    assert texts[3] == (
        "The confidences are uncalibrated: no temperature is kept with this network."
        if temperature is None
        else "The confidences are calibrated: logits are divided by 2.00, the temperature that the run kept."
    )
    shown = [bytes(child.value) for child in button.results.children if not isinstance(child.value, str)]
    assert shown == [(page.prepared.run.folder / name).read_bytes() for name in ("photo_red.png", "photo_red-2.png")]


@pytest.mark.parametrize("content", ["", "[]", '{"temperature": null}', '{"temperature": "1"}', '{"temperature": 0}', '{"a": 1}'])
def test_a_run_without_a_temperature_has_none(content, tmp_path):
    (tmp_path / "summary.json").write_text(content)
    assert kept_temperature(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"temperature": 1.5}')
    assert kept_temperature(tmp_path) == kept_temperature(tmp_path / "checkpoint.pt") == 1.5
    assert kept_temperature(tmp_path / "saved.pt") is None


# ---- the parameter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "value"), [("2024", "2024"), ("a.jpg", "a.jpg"), ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]), ("None", None)]
)
def test_what_is_typed_is_a_path_or_a_list_of_paths(typed, value):
    assert parse([("photo", typed)]) == {"photo": value}


def test_a_photo_that_is_there_passes(photos):
    for photo in (str(photos), [str(photos / "red.png")]):
        Parameters.collect({"photo": photo, "dataset": "digits"}).check()


@pytest.mark.parametrize("photo", ["no/such.jpg", 7, [], ["red.png", 3], "empty"])
def test_one_that_is_not_is_refused_before_any_work(photo, page, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"^photo is .+(give|cannot be used: .+: give) .+\.$"):
        Parameters.collect({"photo": photo, "dataset": "digits"}).check()
    if photo in ("no/such.jpg", "empty"):  # also where the cell of the parameters was changed and not the others
        with pytest.raises(ParameterError, match=r"^photo is .+, which cannot be used: "):
            page.own_photos(CLASSIFIER, photo)


def test_a_pixel_is_explained_in_its_place(page, photos):
    """The map over the photo has the photo's own shape."""
    figure = plots.photo_panel(
        np.zeros((30, 40, 3), np.uint8), CLASSIFIER.explain(np.zeros((30, 40, 3), np.uint8)), [("red", 0.5)], "x", temperature=1.5
    )
    shapes = {axes.images[0].get_array().shape[:2] for axes in figure.axes if axes.images}
    assert (30, 40) in shapes
    assert any("calibrated, T = 1.50" in axes.get_title() for axes in figure.axes)
