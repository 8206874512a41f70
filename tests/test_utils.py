"""The names of the original's notebooks: what each returns, draws, prints and refuses, worked out by hand."""

import copy
import inspect
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from IPython.core.formatters import DisplayFormatter
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import lr_scheduler

from era_support_packages import plots, utils
from era_support_packages.training import course_loop

CLASSES = ("cat", "dog", "frog")
cross_entropy = nn.CrossEntropyLoss()

Loader = list[tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _new_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been trained yet."""
    monkeypatch.setattr(course_loop, "log", course_loop._Log())


class Brightness(nn.Module):
    """Logits (ln 3, 0) for a bright image and (0, 0) for a dark one; the gradient of its one parameter is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout()
        self.trained: list[bool] = []  # the training flag in each forward pass

    def forward(self, images: Tensor) -> Tensor:
        self.trained.append(self.training)
        bright = (images.mean(dim=(1, 2, 3)) > 0.5).float()
        return torch.stack([bright * math.log(3), torch.zeros_like(bright)], dim=1) + 0 * self.nothing


def four_images() -> Loader:
    """A batch of three dark images and one of a bright image, which `Brightness` gets wrong, as it does the second."""
    dark, bright = torch.zeros(3, 3, 8, 8), torch.ones(1, 3, 8, 8)
    return [(dark, torch.tensor([0, 1, 0])), (bright, torch.tensor([1]))]


MEAN_LOSS = 1.25 * math.log(2)  # ln 2 for a dark image, 2 ln 2 for the bright one; the mean over batches is 1.5 ln 2


class Blobs(nn.Module):
    """Three colour planes, less 0.6 and rectified in `layer2`; logits are their means plus (0, 0.05, 0.02)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 3, kernel_size=1, bias=False)
        self.layer2 = nn.Sequential(nn.Conv2d(3, 3, kernel_size=1), nn.ReLU())
        for layer in (self.layer1, self.layer2[0]):
            layer.weight.data = torch.eye(3)[:, :, None, None]
        self.layer2[0].bias.data = torch.full((3,), -0.6)
        self.register_buffer("offset", torch.tensor([0.0, 0.05, 0.02]))

    def forward(self, images: Tensor) -> Tensor:
        return self.layer2(self.layer1(images)).mean(dim=(2, 3)) + self.offset


def two_mistakes() -> list[utils.Mistake]:
    """A strong and a weak red blob, predicted class 0; a blue blob, predicted class 2. Both are class 1."""
    images = torch.zeros(2, 3, 8, 8)
    images[0, 0, :4, :4], images[0, 0, 4:, 4:] = 1.0, 0.5
    images[1, 2, :4, 4:] = 1.0
    return [utils.Mistake(images[0], actual=1, predicted=0), utils.Mistake(images[1], actual=1, predicted=2)]


def normalized_mistakes(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, list[utils.Mistake]]:
    """uint8 images (3, 8, 8, 3) with black and white pixels, and mistakes with these normalised."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 7, 7] = 0, 255
    values = torch.from_numpy((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
    return images, [utils.Mistake(values[0], 1, 0), utils.Mistake(values[1], 0, 2), utils.Mistake(values[2], 2, 1)]


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def curves(figure: Figure) -> list[tuple[list[float], list[float]]]:
    """Epochs and values of the curves: training and test loss, training and test accuracy."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for axes in figure.axes for line in axes.lines]


# ---- names -----------------------------------------------------------------------------------------------------------

SIGNATURES = {
    "train": ["model", "device", "train_loader", "optimizer", "scheduler", "criterion", "epoch"],
    "test": ["model", "device", "test_loader", "criterion"],
    "plot_losses": [],
    "get_incorrrect_predictions": ["model", "loader", "device"],
    "display_incorrect_images": ["mismatch", "n"],
    "plot_incorrect_prediction": ["mismatch", "n"],
    "generate_gradcam": ["misclassified_images", "model", "target_layers", "device"],
    "plot_gradcam": ["gcam_layers", "target_layers", "class_names", "image_size", "predicted", "misclassified_images"],
}


def test_import_star_gives_the_names_of_the_original() -> None:
    namespace: dict[str, object] = {}
    exec("from era_support_packages.utils import *", namespace)
    others = {"GradCAM", "GetCorrectPredCount", "Mistake", "load_data", "train_losses", "train_acc", "test_losses", "test_acc"}
    assert namespace.keys() - {"__builtins__"} == SIGNATURES.keys() | others


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_are_those_of_the_original(name: str) -> None:
    """Whatever comes after them has a default."""
    parameters = list(inspect.signature(getattr(utils, name)).parameters.values())
    originals = SIGNATURES[name]
    assert [parameter.name for parameter in parameters[: len(originals)]] == originals
    assert all(parameter.default is not parameter.empty for parameter in parameters[len(originals) :])


def test_pytest_does_not_take_test_for_a_test() -> None:
    assert utils.test.__test__ is False


# ---- train -----------------------------------------------------------------------------------------------------------


def test_train_returns_means_over_images(capsys: pytest.CaptureFixture[str]) -> None:
    network = Brightness().eval()
    loss, accuracy = utils.train(
        network, "cpu", four_images(), torch.optim.SGD(network.parameters()), None, cross_entropy, epoch=3
    )
    assert loss == pytest.approx(MEAN_LOSS, rel=1e-6)
    assert accuracy == 50.0
    assert network.trained == [True, True]
    assert capsys.readouterr().out == "Epoch 3: Train set: Average loss: 0.8664, Accuracy: 2/4 (50.00%)\n"


def test_train_takes_the_steps_of_sgd() -> None:
    """Two batches against the update rule by hand: each step uses the gradient of its own batch alone."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(size, 3, 2, 2, generator=generator), torch.randint(3, (size,), generator=generator)) for size in (4, 2)
    ]
    expected = copy.deepcopy(network)
    for images, labels in batches:
        gradients = torch.autograd.grad(cross_entropy(expected(images), labels), list(expected.parameters()))
        with torch.no_grad():
            for values, gradient in zip(expected.parameters(), gradients, strict=True):
                values -= 0.1 * gradient

    utils.train(network, "cpu", batches, torch.optim.SGD(network.parameters(), lr=0.1), None, cross_entropy, 1)
    for values, hoped in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(values, hoped)


SCHEDULES: dict[str, tuple[Callable, list[float]]] = {
    "none": (lambda _: None, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    "every epoch": (lambda optimizer: lr_scheduler.StepLR(optimizer, 1, gamma=0.1), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    "every batch": (
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=6,
            pct_start=0.5,
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=1,
            cycle_momentum=False,
        ),
        [0.1, 0.55, 1.0, 0.7, 0.4, 0.1],
    ),
    "in circles": (
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.3, step_size_up=2, cycle_momentum=False),
        [0.1, 0.2, 0.3, 0.2, 0.1, 0.2],
    ),
    # The loss is the same in every epoch: the second one is the first without progress.
    "on a plateau": (
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0),
        [1.0, 1.0, 1.0, 1.0, 0.1, 0.1],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_train_steps_the_scheduler(name: str) -> None:
    make_scheduler, expected = SCHEDULES[name]
    network = Brightness()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    used: list[float] = []
    optimizer.register_step_post_hook(lambda stepped, *_: used.append(stepped.param_groups[0]["lr"]))
    scheduler = make_scheduler(optimizer)
    for epoch in (0, 1, 2):
        utils.train(network, "cpu", four_images(), optimizer, scheduler, cross_entropy, epoch)
    assert used == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scheduler", "shown"),
    [("OneCycleLR", "'OneCycleLR'"), (lr_scheduler.StepLR, "<class 'torch.optim.lr_scheduler.StepLR'>"), (0.1, "0.1")],
)
def test_train_refuses_what_is_no_scheduler(scheduler: object, shown: str) -> None:
    network = Brightness()
    message = f"scheduler is {shown}; give a scheduler object made once before the first epoch, or None."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        utils.train(network, "cpu", four_images(), torch.optim.SGD(network.parameters()), scheduler, cross_entropy, 1)
    assert network.trained == []


NO_IMAGES = "^The loader gave no images; give one that holds at least one batch\\.$"


def test_train_refuses_an_empty_loader() -> None:
    network = Brightness()
    with pytest.raises(ValueError, match=NO_IMAGES):
        utils.train(network, "cpu", [], torch.optim.SGD(network.parameters()), None, cross_entropy, 1)


# ---- test ------------------------------------------------------------------------------------------------------------


def test_test_returns_means_over_images(capsys: pytest.CaptureFixture[str]) -> None:
    network = Brightness()
    loss, accuracy = utils.test(network, "cpu", four_images(), cross_entropy)
    assert loss == pytest.approx(MEAN_LOSS, rel=1e-6)
    assert accuracy == 50.0
    assert capsys.readouterr().out == "Test set: Average loss: 0.8664, Accuracy: 2/4 (50.00%)\n"


def test_test_evaluates_without_gradients_and_restores_every_flag() -> None:
    network = Brightness().train()
    network.dropout.eval()
    seen: list[bool] = []

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.requires_grad)
        return cross_entropy(logits, labels)

    utils.test(network, "cpu", four_images(), criterion)
    assert network.trained == [False, False]
    assert seen == [False, False]
    assert network.training
    assert not network.dropout.training
    assert torch.is_grad_enabled()


def test_test_restores_flags_when_it_fails() -> None:
    network = Brightness().train()

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError) as caught:  # whose traceback keeps the frames alive
        utils.test(network, "cpu", four_images(), criterion)
    assert network.training
    assert network.dropout.training
    assert torch.is_grad_enabled()
    assert caught.traceback


def test_test_refuses_an_empty_loader() -> None:
    with pytest.raises(ValueError, match=NO_IMAGES):
        utils.test(Brightness(), "cpu", [], cross_entropy)


# ---- curves ----------------------------------------------------------------------------------------------------------


def run_epochs(network: nn.Module, epochs: list[int], batches: Loader) -> None:
    optimizer = torch.optim.SGD(network.parameters())
    for epoch in epochs:
        utils.train(network, "cpu", batches, optimizer, None, cross_entropy, epoch)
        utils.test(network, "cpu", batches[1:], cross_entropy)


def test_plot_losses_before_training() -> None:
    message = "^Nothing has been trained yet; call train\\(\\) and test\\(\\) first\\.$"
    with pytest.raises(ValueError, match=message):
        utils.plot_losses()
    utils.test(Brightness(), "cpu", four_images(), cross_entropy)  # a test alone trains nothing
    with pytest.raises(ValueError, match=message):
        utils.plot_losses()


def test_plot_losses_draws_losses_and_accuracies_by_epoch() -> None:
    run_epochs(Brightness(), [1, 2], four_images())
    figure = utils.plot_losses()
    assert figure.get_suptitle() == "Training and test"
    (epochs, train_loss), (_, test_loss), (_, train_accuracy), (_, test_accuracy) = curves(figure)
    assert epochs == [1, 2]
    assert train_loss == pytest.approx([MEAN_LOSS] * 2)
    assert test_loss == pytest.approx([2 * math.log(2)] * 2)  # of the bright image alone
    assert train_accuracy == [50.0, 50.0]
    assert test_accuracy == [0.0, 0.0]


@pytest.mark.parametrize("again", [[1, 2], [2], [3, 4, 5], [0, 1, 2, 3]])
def test_a_rerun_shows_the_rerun_alone(again: list[int]) -> None:
    """Another try of three epochs, with the same network and with a new one."""
    network, right = Brightness(), [(images, torch.zeros_like(labels)) for images, labels in four_images()]
    for rerun_network in (network, Brightness()):
        run_epochs(network, [1, 2, 3], four_images())
        run_epochs(rerun_network, again, right)
        drawn = curves(utils.plot_losses())
        assert [epochs for epochs, _ in drawn] == [again] * 4
        assert drawn[2][1] == drawn[3][1] == [100.0] * len(again)


def test_a_run_may_go_on_in_a_second_cell() -> None:
    network = Brightness()
    run_epochs(network, [1, 2], four_images())
    run_epochs(network, [3], four_images())
    assert [epochs for epochs, _ in curves(utils.plot_losses())] == [[1, 2, 3]] * 4


def test_tests_of_other_networks_leave_the_curves_alone() -> None:
    network = Brightness()
    run_epochs(network, [1], four_images())
    utils.test(Brightness(), "cpu", four_images(), cross_entropy)
    assert curves(utils.plot_losses())[3][1] == [0.0]
    utils.test(network, "cpu", four_images(), cross_entropy)  # the network itself, tested once more
    assert curves(utils.plot_losses())[3][1] == [50.0]


def test_epochs_without_a_test_leave_a_gap() -> None:
    network = Brightness()
    utils.train(network, "cpu", four_images(), torch.optim.SGD(network.parameters()), None, cross_entropy, 1)
    run_epochs(network, [2], four_images())
    losses, accuracies = (curves(utils.plot_losses())[index][1] for index in (1, 3))
    np.testing.assert_array_equal(accuracies, [math.nan, 0.0])
    np.testing.assert_allclose(losses, [math.nan, 2 * math.log(2)], rtol=1e-6)


def test_the_log_does_not_keep_a_network_alive() -> None:
    network = Brightness()
    run_epochs(network, [1], four_images())
    assert course_loop.log.model() is network
    del network
    assert course_loop.log.model() is None
    assert [epochs for epochs, _ in curves(utils.plot_losses())] == [[1]] * 4


# ---- mistakes --------------------------------------------------------------------------------------------------------


class LargestPlane(nn.Module):
    """The class is the brightest colour plane."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_get_incorrrect_predictions() -> None:
    """Five images in unequal batches, wrong are the first, third and last: in order, as (image, actual, predicted)."""
    seen_as = torch.tensor([0, 1, 2, 2, 0])
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 2 * F.one_hot(seen_as)[:, :, None, None]
    labels = torch.tensor([2, 1, 0, 2, 1])
    network = LargestPlane().train()
    mistakes = utils.get_incorrrect_predictions(network, list(zip(images.split(3), labels.split(3), strict=True)), "cpu")

    assert [(mistake.predicted, mistake.actual) for mistake in mistakes] == [(0, 2), (2, 0), (0, 1)]
    assert [(actual, predicted) for _, actual, predicted in mistakes] == [(2, 0), (0, 2), (1, 0)]  # the order of 2023
    assert all(type(value) is int for _, *ids in mistakes for value in ids)
    assert torch.equal(torch.stack([image for image, _, _ in mistakes]), images[[0, 2, 4]])
    assert all(image.untyped_storage().nbytes() == 3 * 4 * 4 * 4 for image, _, _ in mistakes)  # no batch behind it
    assert network.training


def test_no_mistakes() -> None:
    images = F.one_hot(torch.tensor([0, 2]), 3)[:, :, None, None].float()
    assert utils.get_incorrrect_predictions(LargestPlane(), [(images, torch.tensor([0, 2]))], "cpu") == []


PLOTS = [utils.plot_incorrect_prediction, utils.display_incorrect_images]


@pytest.mark.parametrize("plot", PLOTS)
def test_mistakes_as_the_original_calls_it(plot: Callable) -> None:
    """Ten of them at most, CIFAR-10's classes, ImageNet's statistics."""
    images, mistakes = normalized_mistakes((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mistakes = [(image, actual + 3, predicted + 3) for image, actual, predicted in mistakes]  # plain tuples too
    figure = plot(mistakes)
    assert figure.get_suptitle() == "Wrong predictions"
    expected = ["predicted cat\nactual deer", "predicted dog\nactual cat", "predicted deer\nactual dog"]
    assert [axes.get_title() for axes in panels(figure)] == expected
    np.testing.assert_array_equal([pixels(axes) for axes in panels(figure)], images)
    assert len(panels(plot(mistakes * 4))) == 10
    assert len(panels(plot(mistakes * 4, 11))) == 11


@pytest.mark.parametrize("plot", PLOTS)
def test_mistakes_with_other_classes_and_statistics(plot: Callable) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    images, mistakes = normalized_mistakes(mean, std)
    figure = plot(mistakes, 2, CLASSES, mean, std)
    assert [axes.get_title() for axes in panels(figure)] == ["predicted cat\nactual dog", "predicted frog\nactual cat"]
    np.testing.assert_array_equal([pixels(axes) for axes in panels(figure)], images[:2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: utils.plot_incorrect_prediction([]),
        lambda: utils.display_incorrect_images(two_mistakes(), 0),
        lambda: utils.generate_gradcam([], Blobs(), ["layer1"], "cpu"),
        lambda: utils.plot_gradcam([np.zeros((0, 8, 8))], ["layer1"], CLASSES, 8, [], []),
    ],
)
def test_without_mistakes_there_is_nothing_to_show(call: Callable) -> None:
    message = "There are no mistakes to show; give at least one (image, actual, predicted)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


# ---- Grad-CAM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_generate_gradcam_maps(device: str | torch.device) -> None:
    """Each layer's maps in the order asked for, of the class that was predicted."""
    layer1, layer2 = np.zeros((2, 2, 8, 8))
    layer1[0, :4, :4], layer1[0, 4:, 4:] = 1.0, 0.5  # of the red planes' values 1 and 0.5 ...
    layer2[0, :4, :4] = 1.0  # ... only 1 exceeds 0.6
    layer1[1, :4, 4:] = layer2[1, :4, 4:] = 1.0

    maps, _, _ = utils.generate_gradcam(two_mistakes(), Blobs(), ["layer2", "layer1"], device)
    assert [(layer.shape, layer.dtype) for layer in maps] == [((2, 1, 8, 8), torch.float32)] * 2
    np.testing.assert_allclose(maps[0][:, 0], layer2, atol=1e-5)
    np.testing.assert_allclose(maps[1][:, 0], layer1, atol=1e-5)


def test_generate_gradcam_explains_the_class_in_the_mistake() -> None:
    """The mistake counts, not what the network says now: blue in the image that is now red."""
    image = torch.zeros(3, 8, 8)
    image[0, :4, :4], image[2, 4:, 4:] = 1.0, 0.8
    (maps,), _, ids = utils.generate_gradcam([utils.Mistake(image, actual=0, predicted=2)], Blobs(), ["layer1"], "cpu")
    assert ids[0, 0] == 0
    expected = np.zeros((1, 8, 8))
    expected[0, 4:, 4:] = 1
    np.testing.assert_allclose(maps[:, 0], expected, atol=1e-5)


def test_generate_gradcam_probabilities() -> None:
    """The highest first; a blob of 16 in 64 pixels adds 0.4 / 4 to its logit."""
    _, probabilities, ids = utils.generate_gradcam(two_mistakes(), Blobs(), ["layer1"], "cpu")
    assert ids.tolist() == [[0, 1, 2], [2, 1, 0]]
    logits = np.array([[0.10, 0.05, 0.02], [0.12, 0.05, 0.00]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities.numpy(), expected, rtol=1e-6)
    assert (probabilities.dtype, ids.dtype) == (torch.float32, torch.int64)


def test_generate_gradcam_of_many_mistakes_leaves_the_model_alone() -> None:
    model = Blobs().train()
    maps, probabilities, ids = utils.generate_gradcam(two_mistakes() * 35, model, ["layer1"], "cpu")
    assert maps[0].shape == (70, 1, 8, 8)
    assert probabilities.shape == (70, 3)
    assert ids[:, 0].tolist() == [0, 2] * 35
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_plot_gradcam() -> None:
    """Inputs above, maps below; classes come from the mistakes, whatever the other arguments say."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    images, mistakes = normalized_mistakes(mean, std)
    maps = np.random.default_rng(1).random((2, 3, 8, 8))  # layers, images
    wrong_ids = torch.tensor([[2], [2], [2]])
    figure = utils.plot_gradcam(list(maps), ["layer1", "layer4"], CLASSES, (99, 99), wrong_ids, mistakes, mean, std)

    assert figure.get_suptitle() == "Grad-CAM of wrong predictions"
    shown = panels(figure)
    inputs, layers = shown[::3], [shown[1::3], shown[2::3]]
    expected = ["actual dog\npredicted cat", "actual cat\npredicted frog", "actual frog\npredicted dog"]
    assert [axes.get_title() for axes in inputs] == expected
    assert [axes.get_ylabel() for axes in shown[:3]] == ["INPUT", "layer1", "layer4"]
    np.testing.assert_array_equal([pixels(axes) for axes in inputs], images)
    colors = 255 * colormaps["inferno"](maps)[..., :3]
    np.testing.assert_array_equal(
        [[pixels(axes) for axes in row] for row in layers], np.rint(0.5 * images + 0.5 * colors).astype(np.uint8)
    )


# ---- showing ---------------------------------------------------------------------------------------------------------


def test_figures_are_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not again as the value of the cell's last line, where pyplot has taught IPython to draw figures."""
    shown: list[Figure] = []
    monkeypatch.setattr(plots, "show", shown.append)
    run_epochs(Brightness(), [1], four_images())
    mistakes = two_mistakes()
    returned = [
        utils.plot_losses(),
        utils.plot_incorrect_prediction(mistakes),
        utils.display_incorrect_images(mistakes),
        utils.plot_gradcam([np.zeros((2, 8, 8))], ["layer1"], CLASSES, 8, [0, 2], mistakes),
    ]
    assert shown == returned

    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda _: b"picture")
    assert "image/png" in formatter.format(Figure())[0]
    assert [formatter.format(figure) for figure in returned] == [({}, {})] * 4


# ---- what notebooks of 2023 also had ---------------------------------------------------------------------------------


def test_the_lists_of_2023_are_those_of_the_run_trained_last(capsys: pytest.CaptureFixture[str]) -> None:
    network = Brightness()
    run_epochs(network, [1, 2], four_images())
    assert (len(utils.train_losses), len(utils.test_acc)) == (2, 2)
    assert list(utils.train_acc) == curves(utils.plot_losses())[2][1]
    assert list(utils.test_losses) == curves(utils.plot_losses())[1][1]
    run_epochs(network, [1], four_images())  # the cell is run again
    assert len(utils.train_losses) == 1
    assert np.asarray(utils.train_losses).shape == (1,)


def test_correct_predictions_are_counted() -> None:
    assert utils.GetCorrectPredCount(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([1, 1, 1])) == 2


@pytest.mark.parametrize(
    ("call", "way_out"),
    [(utils.load_data, "load\\('cifar10'\\)"), (lambda: utils.GradCAM(nn.Identity(), ["layer4"]), "gradcam.explain")],
)
def test_what_is_not_served_is_refused_in_words(call: Callable, way_out: str) -> None:
    with pytest.raises(ValueError, match=way_out):
        call()


def one_cycle(network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)


def a_network() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def loader(batches: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))] * batches


def test_a_schedule_shorter_than_an_epoch_is_refused_before_the_first_batch() -> None:
    network = a_network()
    before = network[2].weight.clone()
    optimizer, scheduler = one_cycle(network, 4)
    with pytest.raises(ValueError, match=r"the schedule has 4 steps, and one epoch takes 5; make it with OneCycleLR\(optimizer"):
        utils.train(network, "cpu", loader(5), optimizer, scheduler, nn.CrossEntropyLoss(), 1)
    assert torch.equal(network[2].weight, before)


def test_past_the_end_of_a_schedule_the_rate_stays(capsys: pytest.CaptureFixture[str]) -> None:
    network = a_network()
    optimizer, scheduler = one_cycle(network, 10)
    for epoch in (1, 2):
        utils.train(network, "cpu", loader(5), optimizer, scheduler, nn.CrossEntropyLoss(), epoch)
    assert "schedule" not in capsys.readouterr().out
    last = scheduler.get_last_lr()[0]
    assert 0 < last < 1e-5
    utils.train(network, "cpu", loader(5), optimizer, scheduler, nn.CrossEntropyLoss(), 3)
    assert "The schedule of 10 steps ends before this epoch does" in capsys.readouterr().out
    assert optimizer.param_groups[0]["lr"] == last


def test_resnet_custom_gives_log_probabilities_as_it_did() -> None:
    from era_support_packages.custom_resnet import resnet_custom

    network = resnet_custom(drop=0.0).eval()
    output = network(torch.rand(2, 3, 32, 32))
    assert torch.allclose(output.exp().sum(1), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match="weights of the resnet_custom of 2023"):
        network.load_state_dict({"convblock1.0.weight": torch.zeros(64, 3, 3, 3)})


def test_from_a_bare_clone_in_the_folder_above(tmp_path: Path) -> None:
    """Nothing is installed: `-S -I` would hide torch too, so the folder of this checkout is all that is taken away."""
    root = Path(utils.__file__).parents[1]
    (tmp_path / "era_support_packages").symlink_to(root, target_is_directory=True)
    code = (
        "import sys\n"
        f"sys.path[:] = [''] + [p for p in sys.path if p not in ('', {str(root)!r})]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "from era_support_packages.utils import *\n"
        "import era_support_packages as package\n"
        "from era_support_packages import bootstrap, ResNet18\n"
        "print(train.__name__, package.__version__, ResNet18.__name__, bootstrap.project_folder())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ERA_NOTEBOOK_FOLDER")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["train", "1.0.0", "ResNet18", str(tmp_path)], done.stderr[-2000:]
