"""The explorer: every method for one image as a value, a figure and a panel."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import colored_images, tiny_network
from torch import nn

from era_support_packages import gradcam, plots
from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.predictions import Predictions, predict
from era_support_packages.gradcam.explanation import Explanation
from era_support_packages.gradcam.exploration import Exploration, image_passes
from era_support_packages.plots.explorer_panel import WIDGET_VIEW, ExplorerPanel
from era_support_packages.plots.panels import overlay

LAYERS = ("conv", "relu")


@pytest.fixture
def test_split() -> ImageDataset:
    return colored_images(6, split="test")


@pytest.fixture
def network() -> nn.Module:
    return tiny_network().eval()


@pytest.fixture
def predictions(network: nn.Module, test_split: ImageDataset) -> Predictions:
    return predict(network, test_split, torch.device("cpu"))


def classifier_of(network: nn.Module, split: ImageDataset, resolution: int = 8) -> Classifier:
    return Classifier(network, split.classes, split.mean, split.std, resolution)


@pytest.fixture
def classifier(network: nn.Module, test_split: ImageDataset) -> Classifier:
    return classifier_of(network, test_split)


@pytest.fixture
def panel(classifier: Classifier, predictions: Predictions) -> ExplorerPanel:
    return ExplorerPanel(classifier, predictions, [4, 1], layers=LAYERS)


def caption_of(panel: ExplorerPanel) -> list[str]:
    return panel.caption.value.replace("\N{NO-BREAK SPACE}", " ").split("<br>")


def pixels_of(panel: ExplorerPanel, picture: str = "picture") -> np.ndarray:
    """What the panel shows, one pixel for each of the image's."""
    shown = np.array(Image.open(io.BytesIO(getattr(panel, picture).value)))
    factor = shown.shape[0] // 8
    assert np.array_equal(shown, shown[::factor, ::factor].repeat(factor, axis=0).repeat(factor, axis=1))
    return shown[::factor, ::factor]


def test_every_method_explains_the_image_for_the_class(
    classifier: Classifier, network: nn.Module, test_split: ImageDataset
) -> None:
    found = classifier.explore(test_split, 4, 2, layers=LAYERS)
    assert [each.method for each in found.explanations] == list(gradcam.METHODS)
    assert np.array_equal(found.image, test_split.images[4])
    images = normalize_images(test_split, np.array([4]))
    assert found.confidence == pytest.approx(network(images).softmax(dim=1)[0, 2].item())
    for each in found.explanations:
        layers = None if each.method == "fullgrad" else LAYERS
        alone = gradcam.explain(network, images, [2], layers, each.method)
        assert each.targets.tolist() == [[2]]
        assert np.array_equal(each.maps, alone.maps)


def test_fullgrad_is_left_out_with_a_warning_where_it_is_refused(test_split: ImageDataset) -> None:
    smooth = tiny_network()
    smooth.relu = nn.SiLU()
    classifier = classifier_of(smooth, test_split, 8)
    with pytest.warns(UserWarning, match=r"FullGrad is left out: .* layer 'relu' \(SiLU\) adds to it"):
        found = classifier.explore(test_split, 4, layers=["relu"])
    assert [each.method for each in found.explanations] == [name for name in gradcam.METHODS if name != "fullgrad"]
    with pytest.raises(ValueError, match=r"layer 'relu' \(SiLU\)"):
        classifier.explore(test_split, 4, methods=["fullgrad"])


def test_the_image_is_seen_at_the_resolution_asked_for(network: nn.Module, test_split: ImageDataset) -> None:
    found = classifier_of(network, test_split, 12).explore(test_split, 0, layers=LAYERS, methods=["hirescam"])
    assert found.image.shape == (12, 12, 3)
    assert found.explanations[0].maps.shape == (1, 1, 2, 12, 12)


def test_an_explanation_without_its_image_says_so(network: nn.Module) -> None:
    bare = gradcam.explain(network, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"no images to show.*take Classifier\.explain"):
        Exploration((bare,)).image  # noqa: B018


def test_the_cost_is_known_before_it_starts(network: nn.Module, test_split: ImageDataset) -> None:
    image = normalize_images(test_split, np.array([0]))
    assert image_passes(network, image, layers=LAYERS, methods=["gradcam", "fullgrad"]) == 2 * 3  # forward, and back
    # one pass, and one for each of the 8 channels of both layers
    assert image_passes(network, image, layers=LAYERS, methods=["scorecam"]) == 1 + 16
    assert image_passes(network, image, layers=LAYERS) == 7 * 3 + 1 + 2 * 17


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 0), "index is 6; there are 6 images, so give a whole number from 0 to 5."),
        ((-1, 0), "index is -1; there are 6 images, so give a whole number from 0 to 5."),
        (("4", 0), "index is '4'; there are 6 images, so give a whole number from 0 to 5."),
        ((0, 3), "target is 3; there are 3 classes, so give a whole number from 0 to 2."),
    ],
)
def test_what_is_not_there_is_refused(classifier: Classifier, test_split: ImageDataset, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        classifier.explore(test_split, *arguments, layers=LAYERS)
    assert str(raised.value) == message


def test_the_figure_has_a_row_for_each_method_and_a_column_for_each_layer(
    classifier: Classifier, test_split: ImageDataset
) -> None:
    found = classifier.explore(test_split, 4, 2, layers=LAYERS)
    figure = plots.exploration(found, "One image")
    assert figure.get_suptitle() == "One image"
    labels = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes if axes.get_ylabel()]
    assert labels == [
        method.title if method.class_specific else f"{method.title} (no class)" for method in gradcam.METHODS.values()
    ]
    captions = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert captions == ["INPUT", "conv, 8x8", "relu, 8x8", "all layers"]
    assert sum(bool(axes.images) for axes in figure.axes) == len(gradcam.METHODS) + 9 * 2 + 1


def test_its_subject_says_what_was_taken_for_what(classifier: Classifier, predictions: Predictions) -> None:
    names = predictions.classes
    for index in range(6):
        predicted, actual = names[predictions.predicted[index]], names[predictions.labels[index]]
        kind = "right prediction" if predicted == actual else f"mistake ({actual} taken for {predicted})"
        found = classifier.explore(predictions, index, layers=LAYERS, methods=["gradcam"])
        assert found.subject == f"Why {predicted}? Every method for one {kind}"
        assert found.class_id == predictions.predicted[index]
    unlabeled = Predictions(predictions.logits, None, names, predictions.images)
    found = classifier.explore(unlabeled, 0, 1, layers=LAYERS, methods=["gradcam"])
    assert found.subject == f"Why {names[1]}? Every method for one image"


def test_an_empty_exploration_has_no_figure() -> None:
    with pytest.raises(ValueError, match=r"^explanations is empty; at least one is needed\.$"):
        plots.exploration(Exploration(()), "Nothing")


# ---- the panel -----------------------------------------------------------------------------------------------------------


def test_the_panel_begins_with_the_predicted_class_of_the_first_image(
    panel: ExplorerPanel, network: nn.Module, test_split: ImageDataset, predictions: Predictions
) -> None:
    assert panel.image.value == 4
    assert panel.target.value == predictions.predicted[4]
    assert panel.layer.value == "relu"
    heat = gradcam.explain(network, normalize_images(test_split, np.array([4])), "predicted", LAYERS).maps[0, 0, 1]
    assert np.array_equal(pixels_of(panel), plots.overlay(test_split.images[4], heat, 0.5))
    probability = predictions.confidences[4]
    actual, predicted = (test_split.classes[ids[4]] for ids in (predictions.labels, predictions.predicted))
    outcome = "right" if actual == predicted else f"predicted {predicted}"
    assert caption_of(panel) == [
        f"image 4: {actual}, {outcome}",
        f"probability of {predicted}: {100 * probability:.0f} %",
        "grid of 8 x 8 cells",
    ]
    assert panel.image.options[0] == (f"4: {actual}, {outcome}", 4)
    assert panel.number.value == 4


def test_without_layers_it_offers_those_that_are_explained_by_default(
    classifier: Classifier, test_split: ImageDataset, predictions: Predictions
) -> None:
    panel = ExplorerPanel(classifier, predictions, [0])
    assert panel.layers == classifier.explain(test_split, [0]).layers == panel.layer.options


def test_each_knob_redraws_the_picture(panel: ExplorerPanel, network: nn.Module, test_split: ImageDataset) -> None:
    images = normalize_images(test_split, np.array([4]))
    panel.method.value, panel.layer.value, panel.target.value, panel.opacity.value = "hirescam", "conv", 1, 0.8
    heat = gradcam.explain(network, images, [1], ["conv"], "hirescam").maps[0, 0, 0]
    assert np.array_equal(pixels_of(panel), plots.overlay(test_split.images[4], heat, 0.8))


def test_another_image_is_explained_for_its_predicted_class(panel: ExplorerPanel, predictions: Predictions) -> None:
    panel.target.value = (int(predictions.predicted[1]) + 1) % 3
    panel.image.value = 1
    assert panel.target.value == predictions.predicted[1]


def test_a_map_is_computed_once(panel: ExplorerPanel, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = classifier.explain

    def explain(*arguments: Any, **more: Any) -> Explanation:
        asked.append(arguments[4])
        return original(*arguments, **more)

    monkeypatch.setattr(Classifier, "explain", lambda _, *arguments, **more: explain(*arguments, **more))
    panel.method.value = "layercam"
    panel.opacity.value, panel.layer.value = 0.1, "conv"
    panel.method.value = "gradcam"
    assert asked == ["layercam"]


def test_a_method_without_class_or_layer_says_so(panel: ExplorerPanel) -> None:
    panel.method.value = "eigencam"
    assert caption_of(panel)[-2:] == ["grid of 8 x 8 cells", "EigenCAM is the same for every class"]
    assert not panel.layer.disabled
    panel.method.value = "fullgrad"
    assert panel.layer.disabled
    panel.method.value = "gradcam"
    assert not panel.layer.disabled


def test_a_constant_map_is_said_to_mark_nothing(test_split: ImageDataset, predictions: Predictions) -> None:
    network = tiny_network().eval()
    nn.init.zeros_(network.linear.weight)
    panel = ExplorerPanel(classifier_of(network, test_split), predictions, [0], layers=LAYERS)
    assert caption_of(panel)[-1] == "this map is constant: it marks nothing"


def test_any_image_can_be_chosen_by_its_number_and_the_list_names_only_its_own(
    panel: ExplorerPanel, network: nn.Module, test_split: ImageDataset, predictions: Predictions
) -> None:
    panel.number.value = 2
    assert (panel.image.value, panel.target.value) == (None, predictions.predicted[2])
    assert np.array_equal(pixels_of(panel, "input"), test_split.images[2])
    heat = gradcam.explain(network, normalize_images(test_split, np.array([2])), "predicted", LAYERS).maps[0, 0, 1]
    assert np.array_equal(pixels_of(panel), plots.overlay(test_split.images[2], heat, 0.5))
    panel.image.value = 4
    assert panel.number.value == 4
    assert np.array_equal(pixels_of(panel, "input"), test_split.images[4])
    panel.number.value = 1
    assert panel.image.value == 1
    panel.number.value = 99
    assert panel.number.value == 5, "there are six images"


def test_each_choice_of_image_is_drawn_once(panel: ExplorerPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    original = overlay
    monkeypatch.setattr(
        "era_support_packages.plots.explorer_panel.overlay", lambda *arguments: drawn.append(1) or original(*arguments)
    )
    for number in (1, 0, 5):
        panel.number.value = number
    panel.image.value = 4
    assert len(drawn) == 4


def test_the_color_bar_has_the_colors_of_the_map_from_nothing_to_its_strongest(panel: ExplorerPanel) -> None:
    bar = np.array(Image.open(io.BytesIO(panel.color_bar.value)))
    black = np.zeros((1, bar.shape[1], 3), np.uint8)
    heat = np.linspace(0, 1, bar.shape[1])[None]
    assert np.abs(bar.astype(int) - plots.overlay(black, heat, 1.0)).max() <= 1


def test_the_panel_holds_the_input_the_map_its_bar_and_every_knob(panel: ExplorerPanel) -> None:
    def descend(widget: Any) -> list[Any]:
        return [widget, *(each for child in getattr(widget, "children", ()) for each in descend(child))]

    inside = descend(panel.widget)
    assert all(part in inside for part in (panel.input, panel.picture, panel.color_bar, panel.caption))
    described = [part.description for part in inside if getattr(part, "description", "")]
    assert described == ["image", "number", "class", "layer", "method", "opacity"]


def test_where_widgets_are_not_shown_a_sentence_stands_in(panel: ExplorerPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    panel.show()
    (data,) = shown
    assert data.pop(WIDGET_VIEW)["model_id"] == panel.widget.model_id
    assert data == {"text/plain": "Run this cell to get the panel."}


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "indices is empty; give the number of at least one image of the data set."),
        ([0, 6], "an index is 6; there are 6 images, so give a whole number from 0 to 5."),
    ],
)
def test_a_panel_needs_images_that_are_there(
    classifier: Classifier, predictions: Predictions, indices: list[int], message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        ExplorerPanel(classifier, predictions, indices, layers=LAYERS)
    assert str(raised.value) == message
