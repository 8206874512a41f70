"""The explorer: every method for one image as a value, a figure and a panel."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import colored_images
from torch import nn

from era_support_packages import gradcam, plots
from era_support_packages.classifier import Classifier
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.gradcam.explanation import Explanation
from era_support_packages.gradcam.exploration import Exploration, image_passes
from era_support_packages.plots import explorer_panel
from era_support_packages.plots.explorer_panel import WIDGET_VIEW, ExplorerPanel

LAYERS = ("conv", "relu")
TEST = colored_images(6, split="test")
OF_SIX = "there are 6 images, so give a whole number from 0 to 5."


@pytest.fixture
def predictions(tiny_classifier: Classifier) -> Predictions:
    return tiny_classifier.predict(TEST)


def heat_of(classifier: Classifier, index: int, target: int, layer: str = "relu", method: str = "gradcam") -> np.ndarray:
    return gradcam.explain(classifier.network, normalize_images(TEST, np.array([index])), [target], [layer], method).maps[0, 0, 0]


def test_every_method_explains_the_image_for_the_class_in_a_figure_with_a_row_for_each(tiny_classifier: Classifier) -> None:
    found = tiny_classifier.explore(TEST, 4, 2, layers=LAYERS)
    assert [each.method for each in found.explanations] == list(gradcam.METHODS)
    assert np.array_equal(found.image, TEST.images[4])
    image = normalize_images(TEST, np.array([4]))
    assert found.confidence == pytest.approx(tiny_classifier.network(image).softmax(dim=1)[0, 2].item())
    for each in found.explanations:
        layers = None if each.method == "fullgrad" else LAYERS
        assert each.targets.tolist() == [[2]]
        assert np.array_equal(each.maps, gradcam.explain(tiny_classifier.network, image, [2], layers, each.method).maps)

    figure = plots.exploration(found, "One image")
    assert figure.get_suptitle() == "One image"
    titles = [method.title if method.class_specific else f"{method.title} (no class)" for method in gradcam.METHODS.values()]
    assert [axes.get_ylabel().replace("\n", " ") for axes in figure.axes if axes.get_ylabel()] == titles
    captions = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert captions == ["INPUT", "conv, 8x8", "relu, 8x8", "all layers"]
    assert sum(bool(axes.images) for axes in figure.axes) == len(gradcam.METHODS) + 9 * 2 + 1


def test_fullgrad_is_left_out_with_a_warning_where_it_is_refused(tiny_classifier: Classifier) -> None:
    tiny_classifier.network.relu = nn.SiLU()
    with pytest.warns(UserWarning, match=r"FullGrad is left out: .* layer 'relu' \(SiLU\) adds to it"):
        found = tiny_classifier.explore(TEST, 4, layers=["relu"])
    assert [each.method for each in found.explanations] == [name for name in gradcam.METHODS if name != "fullgrad"]
    with pytest.raises(ValueError, match=r"layer 'relu' \(SiLU\)"):
        tiny_classifier.explore(TEST, 4, methods=["fullgrad"])


def test_the_image_is_seen_at_the_resolution_asked_for(tiny_classifier: Classifier) -> None:
    found = dataclasses.replace(tiny_classifier, resolution=12).explore(TEST, 0, layers=LAYERS, methods=["hirescam"])
    assert found.image.shape == (12, 12, 3)
    assert found.explanations[0].maps.shape == (1, 1, 2, 12, 12)


def test_the_cost_is_known_before_it_starts(tiny_classifier: Classifier) -> None:
    # A backward pass counts double; a method may take one pass, and one for each of the 8 channels of both layers.
    for methods, passes in ((["gradcam", "fullgrad"], 2 * 3), (["scorecam"], 1 + 16), (None, 7 * 3 + 1 + 2 * 17)):
        assert image_passes(tiny_classifier.network, torch.zeros(1, 3, 8, 8), layers=LAYERS, methods=methods) == passes


def test_its_subject_says_what_was_taken_for_what(tiny_classifier: Classifier, predictions: Predictions) -> None:
    names = predictions.classes
    for index in range(6):
        predicted, actual = names[predictions.predicted[index]], names[predictions.labels[index]]
        kind = "right prediction" if predicted == actual else f"mistake ({actual} taken for {predicted})"
        found = tiny_classifier.explore(predictions, index, layers=LAYERS, methods=["gradcam"])
        assert found.subject == f"Why {predicted}? Every method for one {kind}"
        assert found.class_id == predictions.predicted[index]
    unlabeled = Predictions(predictions.logits, None, names, predictions.images)
    found = tiny_classifier.explore(unlabeled, 0, 1, layers=LAYERS, methods=["gradcam"])
    assert found.subject == f"Why {names[1]}? Every method for one image"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 0), f"index is 6; {OF_SIX}"),
        ((-1, 0), f"index is -1; {OF_SIX}"),
        (("4", 0), f"index is '4'; {OF_SIX}"),
        ((0, 3), "target is 3; there are 3 classes, so give a whole number from 0 to 2."),
    ],
)
def test_what_is_not_there_is_refused(tiny_classifier: Classifier, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        tiny_classifier.explore(TEST, *arguments, layers=LAYERS)


def test_what_holds_no_image_or_no_explanation_has_no_figure(tiny_classifier: Classifier) -> None:
    bare = gradcam.explain(tiny_classifier.network, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"no images to show.*take Classifier\.explain"):
        Exploration((bare,)).image  # noqa: B018
    with pytest.raises(ValueError, match=r"^explanations is empty; at least one is needed\.$"):
        plots.exploration(Exploration(()), "Nothing")


# ---- the panel -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(tiny_classifier: Classifier, predictions: Predictions) -> ExplorerPanel:
    return ExplorerPanel(tiny_classifier, predictions, [4, 1], layers=LAYERS)


def caption_of(panel: ExplorerPanel) -> list[str]:
    return panel.caption.value.replace("\N{NO-BREAK SPACE}", " ").split("<br>")


def pixels_of(picture: Any) -> np.ndarray:
    """What a picture of the panel shows, one pixel for each of the image's."""
    shown = np.array(Image.open(io.BytesIO(picture.value)))
    factor = shown.shape[0] // 8
    assert np.array_equal(shown, shown[::factor, ::factor].repeat(factor, axis=0).repeat(factor, axis=1))
    return shown[::factor, ::factor]


def test_the_panel_begins_with_the_predicted_class_of_the_first_image(panel: ExplorerPanel, predictions: Predictions) -> None:
    predicted, actual = predictions.predicted[4], TEST.classes[TEST.labels[4]]
    name = TEST.classes[predicted]
    assert (panel.image.value, panel.number.value, panel.target.value, panel.layer.value) == (4, 4, predicted, "relu")
    heat = heat_of(panel.classifier, 4, predicted)
    assert np.array_equal(pixels_of(panel.picture), plots.overlay(TEST.images[4], heat, 0.5))
    outcome = f"4: {actual}, " + ("right" if actual == name else f"predicted {name}")
    probability = f"probability of {name}: {100 * predictions.confidences[4]:.0f} %"
    assert caption_of(panel) == [f"image {outcome}", probability, "grid of 8 x 8 cells"]
    assert panel.image.options[0] == (outcome, 4)


def test_without_layers_it_offers_those_that_are_explained_by_default(tiny_classifier: Classifier) -> None:
    panel = ExplorerPanel(tiny_classifier, tiny_classifier.predict(TEST), [0])
    assert panel.layers == tiny_classifier.explain(TEST, [0]).layers == panel.layer.options


def test_each_knob_redraws_the_picture(panel: ExplorerPanel) -> None:
    panel.method.value, panel.layer.value, panel.target.value, panel.opacity.value = "hirescam", "conv", 1, 0.8
    heat = heat_of(panel.classifier, 4, 1, "conv", "hirescam")
    assert np.array_equal(pixels_of(panel.picture), plots.overlay(TEST.images[4], heat, 0.8))


def test_a_map_is_computed_once(panel: ExplorerPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = Classifier.explain

    def explain(*arguments: Any, **more: Any) -> Explanation:
        asked.append(arguments[5])
        return original(*arguments, **more)

    monkeypatch.setattr(Classifier, "explain", explain)
    panel.method.value = "layercam"
    panel.opacity.value, panel.layer.value = 0.1, "conv"
    panel.method.value = "gradcam"
    assert asked == ["layercam"]


def test_a_method_without_class_or_layer_says_so(panel: ExplorerPanel) -> None:
    panel.method.value = "eigencam"
    assert caption_of(panel)[-2:] == ["grid of 8 x 8 cells", "EigenCAM is the same for every class"]
    for method, disabled in (("eigencam", False), ("fullgrad", True), ("gradcam", False)):
        panel.method.value = method
        assert panel.layer.disabled == disabled


def test_a_constant_map_is_said_to_mark_nothing(predictions: Predictions, tiny_classifier: Classifier) -> None:
    nn.init.zeros_(tiny_classifier.network.linear.weight)
    panel = ExplorerPanel(tiny_classifier, predictions, [0], layers=LAYERS)
    assert caption_of(panel)[-1] == "this map is constant: it marks nothing"


def test_any_image_can_be_chosen_by_its_number_and_is_explained_for_its_predicted_class_in_one_drawing(
    panel: ExplorerPanel, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(explorer_panel, "overlay", lambda *arguments: drawn.append(arguments[0]) or plots.overlay(*arguments))
    for knob, chosen, number, listed, other_class in (
        (panel.number, 2, 2, None, 1),  # the list names only its own
        (panel.image, 4, 4, 4, 1),
        (panel.number, 1, 1, 1, 0),
        (panel.number, 99, 5, None, 0),  # there are six images
    ):
        panel.target.value = (int(predictions.predicted[number]) + other_class) % 3
        drawn.clear()
        knob.value = chosen
        predicted = predictions.predicted[number]
        assert (panel.number.value, panel.image.value, panel.target.value) == (number, listed, predicted)
        assert np.array_equal(pixels_of(panel.input), TEST.images[number])
        heat = heat_of(panel.classifier, number, predicted)
        assert np.array_equal(pixels_of(panel.picture), plots.overlay(TEST.images[number], heat, 0.5))
        assert len(drawn) == 1


def test_the_panel_holds_the_input_the_map_its_color_bar_and_every_knob(panel: ExplorerPanel) -> None:
    def descend(widget: Any) -> list[Any]:
        return [widget, *(each for child in getattr(widget, "children", ()) for each in descend(child))]

    inside = descend(panel.widget)
    assert all(part in inside for part in (panel.input, panel.picture, panel.color_bar, panel.caption))
    described = [part.description for part in inside if getattr(part, "description", "")]
    assert described == ["image", "number", "class", "layer", "method", "opacity"]
    bar = np.array(Image.open(io.BytesIO(panel.color_bar.value)))
    black, heat = np.zeros((1, bar.shape[1], 3), np.uint8), np.linspace(0, 1, bar.shape[1])[None]
    assert np.abs(bar.astype(int) - plots.overlay(black, heat, 1.0)).max() <= 1


def test_where_widgets_are_not_shown_a_sentence_stands_in(panel: ExplorerPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    panel.show()
    (data,) = shown
    assert data.pop(WIDGET_VIEW)["model_id"] == panel.widget.model_id
    assert data == {"text/plain": "Run this cell to get the panel."}


def test_methods_are_names_one_at_least(tiny_classifier: Classifier) -> None:
    assert tiny_classifier.explore(TEST, 0, layers=LAYERS, methods="gradcam").explanations[0].method == "gradcam"
    with pytest.raises(ValueError, match=r"^methods is empty; name at least one method, or pass None for all\.$"):
        tiny_classifier.explore(TEST, 0, layers=LAYERS, methods=[])


@pytest.mark.parametrize(
    ("indices", "message"),
    [([], "indices is empty; give the number of at least one image of the data set."), ([0, 6], f"an index is 6; {OF_SIX}")],
)
def test_a_panel_needs_images_that_are_there(
    tiny_classifier: Classifier, predictions: Predictions, indices: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ExplorerPanel(tiny_classifier, predictions, indices, layers=LAYERS)
