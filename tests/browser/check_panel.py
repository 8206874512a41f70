"""The explorer of section 13 in a browser: each of its widgets answers with another picture."""

import pytest

CELL = "explorer-code"


@pytest.fixture(scope="module")
def panel(executed):
    executed.page.set_width(1440)
    return executed.page.panel(CELL)


def test_it_is_shown(panel):
    assert panel.pictures(), "the panel shows no picture"
    assert panel.described() >= {"image", "number", "class", "layer", "method", "opacity"}


@pytest.mark.parametrize("knob", ["image", "class", "layer", "method"])
def test_another_choice_brings_another_picture(panel, knob):
    panel.choose_another(knob)


def test_any_image_is_found_by_its_number(panel):
    panel.type_another("number")


def test_another_opacity_brings_another_picture(panel):
    panel.move("opacity")


def test_it_is_photographed(executed, folder, panel):
    executed.page.photograph(folder / "panel", [executed.page.number(CELL)])
