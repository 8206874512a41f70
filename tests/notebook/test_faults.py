"""The original's sixteen faults: a check that the package passes, and that the same fault, written anew, fails.

Every check is a function of the implementation. `faulty_original` holds the faults; their numbers are those of the list that
the project was begun with.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import faulty_original as faulty
import numpy as np
import pytest
import torch
import torchvision
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from notebook_files import code_cells, read, tagged
from tiny import plan
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from era_support_packages import gradcam, plots, utils
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.sample_augmentation import Augmenter
from era_support_packages.evaluation import predictions
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.models import summary
from era_support_packages.training import loop as training, lr_finder
from era_support_packages.training.setup import build_model
from era_support_packages.training.step import TrainingStep

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("red", "green", "blue")
VALUES = {"train_images": 16, "crop_padding": 2, "horizontal_flip": 0.5, "range_test_iterations": 20, "test_images": 200}
CONFIG = plan(dataset="tiny", model="resnet_custom", **VALUES)
cross_entropy = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _faults_stay_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("train_losses", "train_accuracies", "test_losses", "test_accuracies"):
        monkeypatch.setattr(faulty, name, [])
    yield
    torch.autograd.set_detect_anomaly(False)


def fails(check: Callable, *arguments: object) -> None:
    """The check fails where the fault is."""
    with pytest.raises(AssertionError):
        check(*arguments)


class Planes(nn.Module):
    """`layer1` copies the colour planes; the mean of a plane, times `sign`, is the logit of its colour."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 3, kernel_size=1, bias=False)
        self.layer1.weight.data = torch.eye(3)[:, :, None, None]
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.sign = sign

    def forward(self, images: Tensor) -> Tensor:
        return self.sign * self.head(self.layer1(images))


class RaisesMidway(Planes):
    def forward(self, images: Tensor) -> Tensor:
        self.layer1(images)
        raise RuntimeError("out of memory")


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def split_of(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> ImageDataset:
    """A test split whose pixels are used as they are."""
    return ImageDataset(images, labels, classes, "tiny", "tiny", "test", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def as_tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) from 0 to 1."""
    return torch.from_numpy(images / 255).float().permute(0, 3, 1, 2)


def two_batches() -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return [(images[:3], torch.tensor([0, 1, 2])), (images[3:], torch.tensor([2, 1, 0]))]


def color_set(count: int, split: str) -> ImageDataset:
    """Noise with one bright colour plane, which is the class."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(count).integers(0, 100, (count, 16, 16, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 120
    return ImageDataset(images, labels, CLASSES, "tiny", "tiny", split, mean=(0.35, 0.35, 0.35), std=(0.25, 0.25, 0.25))


def two_mistakes() -> tuple[list[tuple[Tensor, Tensor]], np.ndarray]:
    """A batch that `Planes` gets wrong, and the places of the colours it mistook it for, float (2, 8, 8).

    The first image is called green but has more red, at the top left; the second is called red but has more blue, at the
    bottom left. The true colour is at the right.
    """
    images = torch.zeros(2, 3, 8, 8)
    images[0, 0, :4, :4], images[0, 1, 4:, 4:] = 1.0, 0.5
    images[1, 2, 4:, :4], images[1, 0, :4, 4:] = 1.0, 0.5
    places = np.zeros((2, 8, 8))
    places[0, :4, :4] = places[1, 4:, :4] = 1
    return [(images, torch.tensor([1, 0]))], places


def normalized(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W), with the statistics that the original's notebooks normalise with."""
    values = (images / 255 - faulty.IMAGENET_MEAN) / faulty.IMAGENET_STD
    return torch.from_numpy(values).float().permute(0, 3, 1, 2)


def random_mistakes(count: int) -> tuple[np.ndarray, list[utils.Mistake]]:
    """uint8 (N, 8, 8, 3) with pixels from black to white, and the mistakes that hold them normalised."""
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 7, 7] = 0, 255
    return images, [(image, i % 3, (i + 1) % 3) for i, image in enumerate(normalized(images))]


def captioned(figure: Figure) -> list[Axes]:
    """The panels that show an image under a caption, in order."""
    return [axes for axes in figure.axes if axes.images and axes.get_title()]


def captions(figure: Figure) -> list[dict[str, str]]:
    """What the captions call predicted, and what actual."""
    return [dict(re.findall(r"(predicted|actual)\s+(\w+)", axes.get_title())) for axes in captioned(figure)]


def pixels(axes: Axes) -> np.ndarray:
    """The picture as it is seen, uint8 (H, W, 3)."""
    image = np.asarray(axes.images[0].get_array())
    return image if image.dtype == np.uint8 else np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def one_cycle(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=4, pct_start=0.5, anneal_strategy="linear", div_factor=10, cycle_momentum=False
    )


def learning_rates(train: Callable, make_scheduler: Callable, epochs: tuple[int, int]) -> list[float]:
    """The learning rate of each optimizer step in two epochs of two batches."""
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    used: list[float] = []
    optimizer.register_step_post_hook(lambda stepped, *_: used.append(stepped.param_groups[0]["lr"]))
    scheduler = make_scheduler(optimizer)
    for epoch in epochs:
        train(network, "cpu", two_batches(), optimizer, scheduler, cross_entropy, epoch)
    return used


def check_one_schedule_for_the_run(train: Callable, make_scheduler: Callable, epochs: tuple[int, int] = (1, 2)) -> None:
    # Up from a tenth of 1.0, then linearly down to a hundred-thousandth: worked out by hand.
    assert learning_rates(train, make_scheduler, epochs) == pytest.approx([0.1, 1.0, 0.500005, 0.00001])


def train_with_step(model, device, train_loader, optimizer, scheduler, criterion, epoch) -> None:
    """An epoch as `training.fit` runs it."""
    step = TrainingStep(model, optimizer, CONFIG, scheduler)
    for images, labels in train_loader:
        step(images, labels)


@pytest.mark.parametrize("train", [utils.train, train_with_step])
def test_fault_01(train):
    """A scheduler object handed to `train` was never stepped."""
    check_one_schedule_for_the_run(train, one_cycle)
    fails(check_one_schedule_for_the_run, faulty.train, one_cycle)
    assert learning_rates(faulty.train, one_cycle, (1, 2)) == pytest.approx([0.1] * 4)  # a tenth of max_lr, all the way


def check_name_is_refused(train: Callable, epoch: int) -> None:
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    message = "scheduler is 'OneCycleLR'; give a scheduler object made once before the first epoch, or None."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train(network, "cpu", two_batches(), optimizer, "OneCycleLR", cross_entropy, epoch)


def test_fault_02():
    """A scheduler named by a string was rebuilt every epoch, and divided by zero at epoch 0."""
    check_name_is_refused(utils.train, epoch=0)
    check_name_is_refused(utils.train, epoch=1)
    with pytest.raises(ZeroDivisionError):
        check_name_is_refused(faulty.train, epoch=0)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_name_is_refused(faulty.train, epoch=1)

    check_one_schedule_for_the_run(utils.train, one_cycle, epochs=(0, 1))
    fails(check_one_schedule_for_the_run, faulty.train, lambda _: "OneCycleLR")
    assert learning_rates(faulty.train, lambda _: "OneCycleLR", (1, 2)) == pytest.approx([0.1, 1.0, 0.1, 1.0])


def explained_mistakes(package: ModuleType) -> tuple[Figure, list[np.ndarray], np.ndarray]:
    """The path of the original's notebook from the test loader to the figure; with it the places the maps must mark."""
    loader, places = two_mistakes()
    network = Planes()
    mistakes = package.get_incorrrect_predictions(network, loader, "cpu")
    maps, _, ids = package.generate_gradcam(mistakes, network, ["layer1"], "cpu")
    return package.plot_gradcam(maps, ["layer1"], CLASSES, (8, 8), ids, mistakes), maps, places


def check_captions_of_maps(package: ModuleType) -> None:
    figure, _, _ = explained_mistakes(package)
    assert captions(figure) == [{"actual": "green", "predicted": "red"}, {"actual": "red", "predicted": "blue"}]


def check_predicted_class_is_explained(package: ModuleType) -> None:
    _, maps, places = explained_mistakes(package)
    np.testing.assert_allclose(np.asarray(maps[0]).reshape(places.shape), places, atol=1e-5)


def test_fault_03():
    """Mistakes stored as (image, predicted, actual) were read as (image, actual, predicted)."""
    check_captions_of_maps(utils)
    check_predicted_class_is_explained(utils)
    fails(check_captions_of_maps, faulty)
    fails(check_predicted_class_is_explained, faulty)
    figure, _, _ = explained_mistakes(faulty)  # "actual red, predicted red" over a wrong prediction
    assert captions(figure) == [{"actual": "red", "predicted": "red"}, {"actual": "blue", "predicted": "blue"}]


def check_one_tuple_order(package: ModuleType) -> None:
    loader, _ = two_mistakes()
    mistakes = package.get_incorrrect_predictions(Planes(), loader, "cpu")
    truth = [{"actual": "green", "predicted": "red"}, {"actual": "red", "predicted": "blue"}]
    assert captions(package.display_incorrect_images(mistakes, 2, CLASSES)) == truth
    assert captions(package.plot_incorrect_prediction(mistakes, 2, CLASSES)) == truth


def test_fault_04(monkeypatch):
    """Two tuple orders in one file."""
    training_set = SimpleNamespace(data=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *_, **__: training_set)  # the faulty code would download it
    check_one_tuple_order(utils)
    fails(check_one_tuple_order, faulty)


def plot_with_confidences(mismatch: list[utils.Mistake], n: int, classes: tuple[str, ...]) -> Figure:
    """`plots.incorrect_predictions`, as the notebook calls it, of mistakes given as tuples."""
    images, actual, predicted = zip(*mismatch[:n], strict=True)
    values = torch.stack(images).permute(0, 2, 3, 1).numpy() * faulty.IMAGENET_STD + faulty.IMAGENET_MEAN
    shown = np.rint(255 * values).clip(0, 255).astype(np.uint8)
    logits = 5 * np.eye(len(classes))[list(predicted)]
    return plots.incorrect_predictions(Predictions(logits, np.array(actual), classes, shown), np.arange(n), "Mistakes")


PLOTS = (utils.plot_incorrect_prediction, utils.display_incorrect_images, plot_with_confidences)


def check_every_mistake_gets_a_panel(plot: Callable, count: int) -> None:
    _, mistakes = random_mistakes(count)
    expected = [{"predicted": CLASSES[predicted], "actual": CLASSES[actual]} for _, actual, predicted in mistakes]
    assert captions(plot(mistakes, count, CLASSES)) == expected


@pytest.mark.unhurried
@pytest.mark.parametrize("count", [1, 11, 23])
def test_fault_05(count):
    """Asking for more than ten mistakes raised an error: the grid was fixed at 2x5."""
    for plot in PLOTS:
        check_every_mistake_gets_a_panel(plot, count)
    if count > 10:
        with pytest.raises(IndexError):
            check_every_mistake_gets_a_panel(faulty.plot_incorrect_prediction, count)


def check_panels_show_the_images(draw: Callable[[list[utils.Mistake]], Figure]) -> None:
    images, mistakes = random_mistakes(4)
    np.testing.assert_array_equal([pixels(axes) for axes in captioned(draw(mistakes))], images)


def draw_gradcam(package: ModuleType, mistakes: list[utils.Mistake], maps: np.ndarray | None = None) -> Figure:
    """The package's Grad-CAM figure of these mistakes, with one layer."""
    maps = np.full((len(mistakes), 8, 8), 0.5, dtype=np.float32) if maps is None else maps
    ids = torch.tensor([[predicted] for _, predicted, _ in mistakes])
    return package.plot_gradcam([maps], ["layer1"], CLASSES, (8, 8), ids, mistakes)


def test_fault_06():
    """Figures showed normalised pixels, or un-normalised with other statistics and overflowed uint8."""
    check_panels_show_the_images(partial(utils.plot_incorrect_prediction, n=4, classes=CLASSES))
    check_panels_show_the_images(partial(utils.display_incorrect_images, n=4, classes=CLASSES))
    check_panels_show_the_images(partial(draw_gradcam, utils))
    fails(check_panels_show_the_images, partial(faulty.plot_incorrect_prediction, n=4, classes=CLASSES))
    fails(check_panels_show_the_images, partial(draw_gradcam, faulty))

    images, mistakes = random_mistakes(4)
    first = captioned(faulty.plot_incorrect_prediction(mistakes, 4, CLASSES))[0]
    assert (pixels(first) == 0).sum() > 50  # black, and ...
    assert (pixels(first) == 255).sum() > 50  # ... burnt out, of 192 values
    speckle = pixels(captioned(draw_gradcam(faulty, mistakes))[0])
    assert np.abs(speckle.astype(int) - images[0]).max() > 200  # white became nearly black


def check_colors_of_a_map(overlay: Callable) -> None:
    """Exact pixels of coldest and hottest place: the colour maps' published end points, times 255."""
    heat = np.array([[0.0, 1.0]])
    black, white = np.zeros((1, 2, 3), dtype=np.uint8), np.full((1, 2, 3), 255, dtype=np.uint8)
    assert overlay(black, heat, 1.0, "inferno").tolist() == [[[0, 0, 4], [252, 255, 164]]]
    assert overlay(black, heat, 1.0, "viridis").tolist() == [[[68, 1, 84], [253, 231, 37]]]
    assert overlay(white, heat, 0.5, "inferno").tolist() == [[[128, 128, 129], [254, 255, 210]]]


def check_hot_places_are_bright(package: ModuleType) -> None:
    maps = np.zeros((1, 8, 8), dtype=np.float32)
    maps[0, 2, 5] = 1
    gray = np.full((1, 8, 8, 3), 100, dtype=np.uint8)
    figure = draw_gradcam(package, [(normalized(gray)[0], 0, 1)], maps)
    (panel,) = [axes for axes in figure.axes if axes.images and not axes.get_title()]
    brightness = pixels(panel).astype(int).sum(axis=2)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (2, 5)


def test_fault_07():
    """The heat map was inverted to make up for a BGR/RGB mix-up (in jet, a symmetric colour map, the two cancel out)."""
    check_colors_of_a_map(plots.overlay)
    check_hot_places_are_bright(utils)
    fails(check_colors_of_a_map, faulty.overlay)
    fails(check_hot_places_are_bright, faulty)

    heat, black = np.array([[0.0, 1.0]]), np.zeros((1, 2, 3), dtype=np.uint8)
    ends = [[[0, 0, 128], [128, 0, 0]]]
    assert plots.overlay(black, heat, 1.0, "jet").tolist() == ends == faulty.overlay(black, heat, 1.0, "jet").tolist()


def check_all_zero_map(generate: Callable) -> None:
    """Every logit falls with its plane, so the ReLU leaves nothing of any class's map."""
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    mistakes = [(images[0], 0, 1), (images[1], 2, 0)]
    (maps,) = generate(mistakes, Planes(sign=-1.0), ["layer1"], "cpu")[0]
    np.testing.assert_array_equal(np.asarray(maps).reshape(2, 8, 8), np.zeros((2, 8, 8)))


def generate_with(method, mistakes, model, layers, device) -> tuple[list[np.ndarray]]:
    images, _, targets = zip(*mistakes, strict=True)
    return (list(gradcam.explain(model, torch.stack(images), targets, layers, method).maps[:, 0].swapaxes(0, 1)),)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "ablationcam"])
def test_fault_08(method):
    """An all-zero map was divided by zero and became NaN."""
    check_all_zero_map(utils.generate_gradcam)
    check_all_zero_map(partial(generate_with, method))
    with pytest.raises(AssertionError, match="nan"):
        check_all_zero_map(faulty.generate_gradcam)


def count_hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def check_model_is_left_alone(generate: Callable, model: nn.Module, predicted: int, error: type[Exception]) -> None:
    """`generate` raises midway, and the model is as it was."""
    model.train()
    model.head.eval()
    with pytest.raises(error):
        generate([(torch.rand(3, 8, 8), 0, predicted)], model, ["layer1"], "cpu")
    assert count_hooks(model) == 0
    assert model.training
    assert model.layer1.training
    assert not model.head.training
    assert model.layer1.weight.requires_grad
    assert model.layer1.weight.grad is None


def summarize(mistakes: list[utils.Mistake], model: nn.Module, layers: list[str], device: str) -> str:
    return summary.model_summary(model, (3, 8, 8))


def test_fault_09():
    """Hooks stayed on the model when anything raised."""
    check_model_is_left_alone(utils.generate_gradcam, RaisesMidway(), 0, RuntimeError)
    check_model_is_left_alone(utils.generate_gradcam, Planes(), 7, ValueError)  # there is no class 7
    check_model_is_left_alone(partial(generate_with, "gradcam"), RaisesMidway(), 0, RuntimeError)
    check_model_is_left_alone(summarize, RaisesMidway(), 0, RuntimeError)
    for model, predicted, error in ((RaisesMidway(), 0, RuntimeError), (Planes(), 7, IndexError)):
        fails(check_model_is_left_alone, faulty.generate_gradcam, model, predicted, error)
        assert count_hooks(model) == 1


def check_suggestion_keeps_clear_of_the_edge(suggest: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """The loss is flat up to 0.001, falls along a cosine over the logarithm up to 1, and then explodes."""
    lrs = np.logspace(-4, 1, 101)
    exponents = np.log10(lrs)
    losses = 1.7 + 0.6 * np.cos(np.pi * (exponents + 3).clip(0, 3) / 3) + 40 * exponents.clip(0)
    assert losses.argmin() == 80
    assert lrs[80] == pytest.approx(1.0)
    assert 0.001 < suggest(lrs, losses) <= 0.1  # on the slope, and at most a tenth of where it turns


def check_momentum_outlives_the_range_test(run: Callable[[], object]) -> None:
    used: list[float] = []
    handle = register_optimizer_step_post_hook(
        lambda optimizer, *_: used.extend(group["momentum"] for group in optimizer.param_groups)
    )
    try:
        run()
    finally:
        handle.remove()
    assert used[-1] == 0.9  # the last step is one of training
    assert set(used) == {0.9}


def range_test_and_train() -> None:
    train, test = color_set(48, "train"), color_set(6, "test")
    network = small_network()
    result = lr_finder.range_test(network, train, len(test), CONFIG)
    training.fit(network, train, test, CONFIG.replace(max_lr=result.suggestion()), report=lambda _: None)


@pytest.mark.parametrize("name", lr_finder.SUGGESTIONS)
def test_fault_10(name):
    """max_lr was the learning rate at the lowest loss, on the edge of divergence."""
    check_suggestion_keeps_clear_of_the_edge(lambda lrs, losses: lr_finder.suggest(lrs, losses)[name])
    fails(check_suggestion_keeps_clear_of_the_edge, faulty.suggest_max_lr)


def test_fault_10_momentum():
    """After the range test the optimizer was rebuilt without momentum."""
    check_momentum_outlives_the_range_test(range_test_and_train)
    rebuilt = partial(faulty.train_after_range_test, small_network(), *two_batches()[0], max_lr=0.1)
    fails(check_momentum_outlives_the_range_test, rebuilt)


def run_cell(package: ModuleType, network: nn.Module) -> None:
    """A notebook's training cell of two epochs."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for epoch in (1, 2):
        package.train(network, "cpu", two_batches(), optimizer, None, cross_entropy, epoch)
        package.test(network, "cpu", two_batches(), cross_entropy)


def check_curves_are_of_one_run(package: ModuleType, cells: int, new_network: bool = True) -> None:
    network = small_network()
    for _ in range(cells):
        network = small_network() if new_network else network
        run_cell(package, network)
    lengths = [len(line.get_ydata()) for axes in package.plot_losses().axes for line in axes.lines]
    assert lengths == [2, 2, 2, 2]  # train and test, loss and accuracy, of two epochs


def test_fault_11():
    """Losses and accuracies piled up in module globals when a cell was run again."""
    check_curves_are_of_one_run(utils, cells=2)
    check_curves_are_of_one_run(utils, cells=2, new_network=False)
    check_curves_are_of_one_run(faulty, cells=1)
    fails(check_curves_are_of_one_run, faulty, 1)  # the second run of that cell


class Brightness(nn.Module):
    """Logits (ln 3, 0) - 2 for a bright image and (0, 0) - 2 for a dark one: no probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) > 0.5
        return torch.stack([bright * torch.tensor(3.0).log(), torch.zeros(len(images))], dim=1) - 2


def check_loss_is_a_mean_over_images(test_loss: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Three dark images cost ln 2 each; a bright one, in a batch of its own, -ln(1/4) = 2 ln 2."""
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    images[3] = 255
    assert test_loss(images, np.array([0, 1, 0, 1])) == pytest.approx(1.25 * np.log(2), rel=1e-6)


def loss_of_loader(test: Callable[..., object], images: np.ndarray, labels: np.ndarray) -> float:
    """The loss that `test` returns for batches of three images."""
    batches = list(zip(as_tensor(images).split(3), torch.from_numpy(labels).split(3), strict=True))
    result = test(Brightness(), "cpu", batches, cross_entropy)
    return result[0] if isinstance(result, tuple) else result


def loss_of_predictions(images: np.ndarray, labels: np.ndarray) -> float:
    dataset = split_of(images, labels, ("dark", "bright"))
    return predictions.predict(Brightness(), dataset, torch.device("cpu"), batch_size=3).mean_loss


def test_fault_12():
    """Test loss was a sum of batch means divided by the number of images."""
    check_loss_is_a_mean_over_images(partial(loss_of_loader, utils.test))
    check_loss_is_a_mean_over_images(loss_of_predictions)
    fails(check_loss_is_a_mean_over_images, partial(loss_of_loader, faulty.test))


class DownloadedError(Exception):
    pass


def check_plotting_needs_no_data_set(plot: Callable[[list[utils.Mistake]], Figure]) -> None:
    def download(*_: object, **__: object) -> None:
        raise DownloadedError

    with pytest.MonkeyPatch.context() as patch:
        for name in ("CIFAR10", "CIFAR100"):
            patch.setattr(torchvision.datasets, name, download)
        patch.setattr("urllib.request.urlopen", download)
        assert len(captioned(plot(random_mistakes(3)[1]))) == 3


def test_fault_13():
    """Plotting downloaded the data set again to learn its mean and standard deviation."""
    for plot in PLOTS:
        check_plotting_needs_no_data_set(partial(plot, n=3, classes=CLASSES))
    check_plotting_needs_no_data_set(partial(draw_gradcam, utils))
    with pytest.raises(DownloadedError):
        check_plotting_needs_no_data_set(partial(faulty.display_incorrect_images, n=3, classes=CLASSES))


def check_anomaly_detection_is_off(run: Callable[[], object]) -> None:
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(torch.is_anomaly_enabled()))
    try:
        run()
    finally:
        handle.remove()
    assert seen
    assert not any(seen)
    assert not torch.is_anomaly_enabled()


def test_fault_14():
    """Anomaly detection stayed switched on."""
    check_anomaly_detection_is_off(partial(run_cell, utils, small_network()))
    check_anomaly_detection_is_off(range_test_and_train)
    check_anomaly_detection_is_off(partial(explained_mistakes, utils))
    fails(check_anomaly_detection_is_off, partial(run_cell, faulty, small_network()))
    assert torch.is_anomaly_enabled()


class MeanPixel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None].expand(-1, 2)


def check_predictions_are_in_file_order(predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    images = np.empty((16, 8, 8, 3), dtype=np.uint8)
    images[:] = 10 * np.arange(16)[:, None, None, None]
    logits = predict(images, np.arange(16) % 2)
    np.testing.assert_allclose(255 * np.asarray(logits)[:, 0], 10 * np.arange(16), atol=1e-3)


def predict_with_package(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    dataset = split_of(images, labels, ("even", "odd"))
    return predictions.predict(MeanPixel(), dataset, torch.device("cpu"), batch_size=4).logits


def predict_shuffled(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return faulty.predict_test_split(MeanPixel(), as_tensor(images), torch.from_numpy(labels)).numpy()


def check_seed_decides(train_once: Callable[[int], nn.Module]) -> None:
    """Equal seeds give equal weights, whatever random numbers were drawn before; another seed gives others."""
    weights = []
    for state, seed in ((1, 5), (2, 5), (3, 6)):
        torch.manual_seed(state)
        np.random.seed(state)
        weights.append(torch.cat([values.detach().flatten() for values in train_once(seed).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def train_with_package(seed: int) -> nn.Module:
    """Weights, order, augmentation and dropout all come from the configuration's seed."""
    config = CONFIG.replace(seed=seed)
    network = build_model(config, 3)
    training.fit(network, color_set(24, "train"), color_set(3, "test"), config, report=lambda _: None)
    return network


def train_unseeded(seed: int) -> nn.Module:
    return faulty.train_once(as_tensor(color_set(24, "train").images), torch.arange(24) % 3, seed)


def check_headings(texts: list[str]) -> None:
    assert texts
    assert not [text for text in texts if "mnist" in text.lower()]


def titles(package: ModuleType) -> list[str]:
    """Every text of the package's figures of mistakes."""
    _, mistakes = random_mistakes(3)
    figures = [draw_gradcam(package, mistakes), package.plot_incorrect_prediction(mistakes, 3, CLASSES)]
    texts = [text for figure in figures for text in (figure.get_suptitle(), *(axes.get_title() for axes in figure.axes))]
    return list(filter(None, texts))


@pytest.mark.unhurried
def test_fault_15():
    """The test set was shuffled, nothing was seeded, and a heading called CIFAR-10 "MNIST"."""
    check_predictions_are_in_file_order(predict_with_package)
    fails(check_predictions_are_in_file_order, predict_shuffled)

    check_seed_decides(train_with_package)
    fails(check_seed_decides, train_unseeded)

    run_cell(utils, small_network())
    check_headings([*titles(utils), utils.plot_losses().get_suptitle()])
    notebook = read()
    check_headings([cell.source for cell in notebook.cells])
    # what its cells printed; pictures are left out, as any letters can occur in their base64
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    check_headings([output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs])
    fails(check_headings, titles(faulty))


def check_cutout_cuts(cutout: Callable[[np.ndarray], np.ndarray]) -> None:
    """Of a white image, 16 x 16 pixels in one square are black."""
    for _ in range(5):
        black = (cutout(np.full((32, 32, 3), 255, dtype=np.uint8)) == 0).all(axis=2)
        assert black.sum() == 256
        rows, columns = np.nonzero(black)
        assert (np.ptp(rows), np.ptp(columns)) == (15, 15)


def cutout_with_package(image: np.ndarray) -> np.ndarray:
    augmenter = Augmenter(AugmentationPolicy(horizontal_flip=0.0, cutout=16), 32, 32, fill=(0, 0, 0), seed=0)
    return augmenter(image, 0, 0)


def test_fault_16():
    """The cutout arguments of albumentations 1.x are silently ignored by 2.x."""
    check_cutout_cuts(cutout_with_package)
    with pytest.warns(UserWarning, match="max_holes"), pytest.raises(AssertionError):
        check_cutout_cuts(faulty.cutout)


# In a fresh kernel without the package, installed or not: runs the cell in this file's arguments so many times, and says where
# the package then lies. As in a notebook, the current folder is on the path.
KERNEL = """
import sys
from importlib.machinery import PathFinder

before = set(sys.path)
sys.path.insert(0, "")


class WithoutPackage:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name == "era_support_packages":
            return PathFinder.find_spec(name, [entry for entry in sys.path if entry not in before], target)
        return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [WithoutPackage(finder) for finder in sys.meta_path]
source, times = sys.argv[1], int(sys.argv[2])
cells = {"__name__": "__main__"}
for _ in range(times):
    exec(compile(source, "<cell>", "exec"), cells)
import era_support_packages.training.config
print(era_support_packages.training.config.__file__)
"""


@pytest.fixture(scope="module")
def local_clone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bare clone of this repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to clone")
    folder = tmp_path_factory.mktemp("origin") / "era_support_packages.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(folder)], check=True)
    return str(folder)


def run_kernel(source: str, times: int, folder: Path, url: str) -> subprocess.CompletedProcess:
    """Run a cell in a process of its own, in `folder`; nothing can be installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ERA_", "GIT_"))}
    environment |= {"ERA_REPO_URL": url, "PIP_NO_INDEX": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = [sys.executable, "-I", "-c", KERNEL, source, str(times)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def check_clone_cell(source: str, folder: Path, url: str) -> None:
    """Twice in one kernel, then once more after a restart."""
    folder.mkdir()
    folder = folder.resolve()
    for times in (2, 1):
        result = run_kernel(source, times, folder, url)
        assert result.returncode == 0, result.stderr
        assert Path(folder, result.stdout.strip().splitlines()[-1]).is_relative_to(folder / "era_support_packages")


def bootstrap_cell() -> str:
    """The cell behind the parameters that it reads, with a data set that needs no download."""
    parameters, bootstrap = (tagged(read(), tag)[0].source for tag in ("parameters", "bootstrap"))
    return f"{parameters}\ndataset = 'digits'\n{bootstrap}"


@pytest.mark.unhurried
def test_fault_16_clone_cell(local_clone, tmp_path):
    """A second run of the clone cell failed."""
    check_clone_cell(bootstrap_cell(), tmp_path / "ours", local_clone)
    with pytest.raises(AssertionError, match="returned non-zero exit status 128"):
        check_clone_cell(faulty.CLONE_CELL, tmp_path / "faulty", local_clone)
    assert run_kernel(faulty.CLONE_CELL, 1, tmp_path, local_clone).returncode == 0
    assert faulty.clone_twice(local_clone, tmp_path) == [0, 128]


def test_the_kernel_lacks_the_package(tmp_path):
    """Without the cell nothing is found: otherwise the test above would be one of this checkout."""
    result = run_kernel("", 1, tmp_path, "")
    assert result.returncode == 1
    assert "No module named 'era_support_packages'" in result.stderr
    assert importlib.util.find_spec("era_support_packages") is not None
