"""The names of the original's notebooks: what each returns, draws, prints and refuses, worked out by hand."""

import copy
import inspect
import math
import os
import re
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
from era_support_packages.custom_resnet import resnet_custom
from era_support_packages.training import course_loop

CLASSES = ("cat", "dog", "frog")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
cross_entropy = nn.CrossEntropyLoss()

Loader = list[tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _new_log(monkeypatch):
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


def train(network: nn.Module, batches: Loader, scheduler: object = None, epoch: int = 1) -> tuple[float, float]:
    optimizer = getattr(scheduler, "optimizer", None) or torch.optim.SGD(network.parameters(), lr=0.1)
    return utils.train(network, "cpu", batches, optimizer, scheduler, cross_entropy, epoch)


def run_epochs(network: nn.Module, epochs: list[int], batches: Loader) -> None:
    for epoch in epochs:
        train(network, batches, epoch=epoch)
        utils.test(network, "cpu", batches[1:], cross_entropy)


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


def test_import_star_gives_the_names_of_the_original_with_their_arguments():
    namespace: dict[str, object] = {}
    exec("from era_support_packages.utils import *", namespace)
    others = {"GradCAM", "GetCorrectPredCount", "Mistake", "load_data", "train_losses", "train_acc", "test_losses", "test_acc"}
    assert namespace.keys() - {"__builtins__"} == SIGNATURES.keys() | others
    for name, originals in SIGNATURES.items():
        parameters = list(inspect.signature(namespace[name]).parameters.values())
        assert [parameter.name for parameter in parameters[: len(originals)]] == originals
        assert all(parameter.default is not parameter.empty for parameter in parameters[len(originals) :])
    assert utils.test.__test__ is False  # pytest does not take it for a test


# ---- train -----------------------------------------------------------------------------------------------------------


def test_train_and_test_return_and_print_means_over_images(capsys):
    for call, said, training in (
        (lambda network: train(network, four_images(), epoch=3), "Epoch 3: Train set", True),
        (lambda network: utils.test(network, "cpu", four_images(), cross_entropy), "Test set", False),
    ):
        network = Brightness().train(not training)
        loss, accuracy = call(network)
        assert loss == pytest.approx(MEAN_LOSS, rel=1e-6)
        assert accuracy == 50.0
        assert network.trained == [training, training]
        assert capsys.readouterr().out == f"{said}: Average loss: 0.8664, Accuracy: 2/4 (50.00%)\n"


def test_train_takes_the_steps_of_sgd():
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
    train(network, batches)
    for values, hoped in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(values, hoped)


CYCLE = {"pct_start": 0.5, "anneal_strategy": "linear", "div_factor": 10, "final_div_factor": 1, "cycle_momentum": False}


@pytest.mark.parametrize(
    ("make_scheduler", "expected"),
    [
        (lambda _: None, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (lambda optimizer: lr_scheduler.StepLR(optimizer, 1, gamma=0.1), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
        (
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=6, **CYCLE),
            [0.1, 0.55, 1.0, 0.7, 0.4, 0.1],
        ),
        (
            lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.3, step_size_up=2, cycle_momentum=False),
            [0.1, 0.2, 0.3, 0.2, 0.1, 0.2],
        ),
        # The loss is the same in every epoch: the second one is the first without progress.
        (
            lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0),
            [1.0, 1.0, 1.0, 1.0, 0.1, 0.1],
        ),
    ],
    ids=["none", "every epoch", "every batch", "in circles", "on a plateau"],
)
def test_train_steps_the_scheduler(make_scheduler, expected):
    network, used = Brightness(), []
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    optimizer.register_step_post_hook(lambda stepped, *_: used.append(stepped.param_groups[0]["lr"]))
    scheduler = make_scheduler(optimizer)
    for epoch in (0, 1, 2):
        utils.train(network, "cpu", four_images(), optimizer, scheduler, cross_entropy, epoch)
    assert used == pytest.approx(expected)


def one_cycle(network: nn.Module, steps: int) -> lr_scheduler.OneCycleLR:
    return lr_scheduler.OneCycleLR(torch.optim.SGD(network.parameters(), lr=0.1), max_lr=0.1, total_steps=steps)


def test_past_the_end_of_a_schedule_the_rate_stays(capsys):
    network = Brightness()
    scheduler = one_cycle(network, 4)
    for epoch in (1, 2):
        train(network, four_images(), scheduler, epoch)
    assert "schedule" not in capsys.readouterr().out
    last = scheduler.get_last_lr()[0]
    assert 0 < last < 1e-5
    train(network, four_images(), scheduler, 3)
    assert "The schedule of 4 steps ends before this epoch does" in capsys.readouterr().out
    assert scheduler.optimizer.param_groups[0]["lr"] == last


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("OneCycleLR", "scheduler is 'OneCycleLR'; give a scheduler object made once before the first epoch, or None."),
        (lr_scheduler.StepLR, "scheduler is <class 'torch.optim.lr_scheduler.StepLR'>; give a scheduler object made once"),
        (0.1, "scheduler is 0.1; give a scheduler object made once before the first epoch, or None."),
        (
            one_cycle(Brightness(), 1),
            "The schedule has 1 steps, and one epoch takes 2; make it with OneCycleLR(optimizer",
        ),
    ],
)
def test_train_refuses_what_is_no_scheduler_or_shorter_than_an_epoch_before_the_first_batch(scheduler, message):
    network = Brightness()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        train(network, four_images(), scheduler)
    assert network.trained == []


def test_an_empty_loader_is_refused():
    for call in (lambda: train(Brightness(), []), lambda: utils.test(Brightness(), "cpu", [], cross_entropy)):
        with pytest.raises(ValueError, match=r"^The loader gave no images; give one that holds at least one batch\.$"):
            call()


@pytest.mark.parametrize("error", [None, ArithmeticError])
def test_test_evaluates_without_gradients_and_restores_every_flag_also_when_it_fails(error):
    network, seen = Brightness().train(), []
    network.dropout.eval()

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.requires_grad)
        if error:
            raise error
        return cross_entropy(logits, labels)

    caught = []
    try:
        utils.test(network, "cpu", four_images(), criterion)
    except ArithmeticError as raised:
        caught.append(raised)  # its traceback keeps the frames alive
    assert len(caught) == (error is not None)
    assert network.trained == seen == [False] * (1 if error else 2)
    assert network.training
    assert not network.dropout.training
    assert torch.is_grad_enabled()


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_plot_losses_before_training():
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^Nothing has been trained yet; call train\(\) and test\(\) first\.$"):
            utils.plot_losses()
        utils.test(Brightness(), "cpu", four_images(), cross_entropy)  # a test alone trains nothing


def test_plot_losses_draws_losses_and_accuracies_by_epoch():
    run_epochs(Brightness(), [1, 2], four_images())
    figure = utils.plot_losses()
    assert figure.get_suptitle() == "Training and test"
    (epochs, train_loss), (_, test_loss), (_, train_accuracy), (_, test_accuracy) = curves(figure)
    assert epochs == [1, 2]
    assert train_loss == pytest.approx([MEAN_LOSS] * 2)
    assert test_loss == pytest.approx([2 * math.log(2)] * 2)  # of the bright image alone
    assert (train_accuracy, test_accuracy) == ([50.0, 50.0], [0.0, 0.0])
    lists = [list(values) for values in (utils.train_losses, utils.test_losses, utils.train_acc, utils.test_acc)]  # of 2023
    assert lists == [train_loss, test_loss, train_accuracy, test_accuracy]
    assert len(utils.train_losses) == len(utils.test_acc) == 2
    assert np.asarray(utils.train_losses).shape == (2,)


@pytest.mark.parametrize("again", [[1, 2], [2], [3, 4, 5], [0, 1, 2, 3]])
def test_a_rerun_shows_the_rerun_alone(again):
    """Another try of three epochs, with the same network and with a new one."""
    network, right = Brightness(), [(images, torch.zeros_like(labels)) for images, labels in four_images()]
    for rerun_network in (network, Brightness()):
        run_epochs(network, [1, 2, 3], four_images())
        run_epochs(rerun_network, again, right)
        drawn = curves(utils.plot_losses())
        assert [epochs for epochs, _ in drawn] == [again] * 4
        assert drawn[2][1] == drawn[3][1] == [100.0] * len(again)
        assert len(utils.train_losses) == len(again)


def test_a_run_may_go_on_in_a_second_cell_and_the_log_does_not_keep_its_network_alive():
    network = Brightness()
    run_epochs(network, [1, 2], four_images())
    run_epochs(network, [3], four_images())
    assert course_loop.log.model() is network
    del network
    assert course_loop.log.model() is None
    assert [epochs for epochs, _ in curves(utils.plot_losses())] == [[1, 2, 3]] * 4


def test_tests_of_other_networks_leave_the_curves_alone_and_epochs_without_a_test_leave_a_gap():
    network = Brightness()
    train(network, four_images(), epoch=1)
    run_epochs(network, [2], four_images())
    utils.test(Brightness(), "cpu", four_images(), cross_entropy)
    losses, accuracies = (curves(utils.plot_losses())[index][1] for index in (1, 3))
    np.testing.assert_array_equal(accuracies, [math.nan, 0.0])
    np.testing.assert_allclose(losses, [math.nan, 2 * math.log(2)], rtol=1e-6)
    utils.test(network, "cpu", four_images(), cross_entropy)  # the network itself, tested once more
    np.testing.assert_array_equal(curves(utils.plot_losses())[3][1], [math.nan, 50.0])


# ---- mistakes --------------------------------------------------------------------------------------------------------


class LargestPlane(nn.Module):
    """The class is the brightest colour plane."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_get_incorrrect_predictions():
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
    assert utils.get_incorrrect_predictions(network, [(images, seen_as)], "cpu") == []


PLOTS = [utils.plot_incorrect_prediction, utils.display_incorrect_images]


@pytest.mark.parametrize("plot", PLOTS)
def test_mistakes_are_drawn_as_the_original_calls_it_and_with_other_classes_and_statistics(plot):
    """Ten of them at most, CIFAR-10's classes, ImageNet's statistics."""
    images, mistakes = normalized_mistakes((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mistakes = [(image, actual + 3, predicted + 3) for image, actual, predicted in mistakes]  # plain tuples too
    figure = plot(mistakes)
    assert figure.get_suptitle() == "Wrong predictions"
    expected = ["predicted cat\nactual deer", "predicted dog\nactual cat", "predicted deer\nactual dog"]
    assert [axes.get_title() for axes in panels(figure)] == expected
    np.testing.assert_array_equal([pixels(axes) for axes in panels(figure)], images)
    assert [len(panels(plot(mistakes * 4, *count))) for count in ((), (11,))] == [10, 11]
    images, mistakes = normalized_mistakes(MEAN, STD)
    figure = plot(mistakes, 2, CLASSES, MEAN, STD)
    assert [axes.get_title() for axes in panels(figure)] == ["predicted cat\nactual dog", "predicted frog\nactual cat"]
    np.testing.assert_array_equal([pixels(axes) for axes in panels(figure)], images[:2])


NOTHING = "There are no mistakes to show; give at least one (image, actual, predicted)."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: utils.plot_incorrect_prediction([]), NOTHING),
        (lambda: utils.display_incorrect_images(two_mistakes(), 0), NOTHING),
        (lambda: utils.generate_gradcam([], Blobs(), ["layer1"], "cpu"), NOTHING),
        (lambda: utils.plot_gradcam([np.zeros((0, 8, 8))], ["layer1"], CLASSES, 8, [], []), NOTHING),
        (utils.load_data, "load('cifar10')"),
        (lambda: utils.GradCAM(nn.Identity(), ["layer4"]), "gradcam.explain"),
    ],
)
def test_without_mistakes_there_is_nothing_to_show_and_what_is_not_served_names_the_way_out(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# ---- Grad-CAM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_generate_gradcam(device):
    """Each layer's maps in the order asked for, of the class that was predicted; the highest probability first."""
    layer1, layer2 = np.zeros((2, 2, 8, 8))
    layer1[0, :4, :4], layer1[0, 4:, 4:] = 1.0, 0.5  # of the red planes' values 1 and 0.5 ...
    layer2[0, :4, :4] = 1.0  # ... only 1 exceeds 0.6
    layer1[1, :4, 4:] = layer2[1, :4, 4:] = 1.0

    maps, probabilities, ids = utils.generate_gradcam(two_mistakes(), Blobs(), ["layer2", "layer1"], device)
    assert [(layer.shape, layer.dtype) for layer in maps] == [((2, 1, 8, 8), torch.float32)] * 2
    np.testing.assert_allclose(maps[0][:, 0], layer2, atol=1e-5)
    np.testing.assert_allclose(maps[1][:, 0], layer1, atol=1e-5)
    assert ids.tolist() == [[0, 1, 2], [2, 1, 0]]
    logits = np.array([[0.10, 0.05, 0.02], [0.12, 0.05, 0.00]])  # a blob of 16 in 64 pixels adds 0.4 / 4 to its logit
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities.numpy(), expected, rtol=1e-6)
    assert (probabilities.dtype, ids.dtype) == (torch.float32, torch.int64)


def test_generate_gradcam_explains_the_class_in_the_mistake():
    """The mistake counts, not what the network says now: blue in the image that is now red."""
    image = torch.zeros(3, 8, 8)
    image[0, :4, :4], image[2, 4:, 4:] = 1.0, 0.8
    (maps,), _, ids = utils.generate_gradcam([utils.Mistake(image, actual=0, predicted=2)], Blobs(), ["layer1"], "cpu")
    assert ids[0, 0] == 0
    expected = np.zeros((1, 8, 8))
    expected[0, 4:, 4:] = 1
    np.testing.assert_allclose(maps[:, 0], expected, atol=1e-5)


def test_generate_gradcam_of_many_mistakes_leaves_the_model_alone():
    model = Blobs().train()
    maps, probabilities, ids = utils.generate_gradcam(two_mistakes() * 35, model, ["layer1"], "cpu")
    assert (maps[0].shape, probabilities.shape) == ((70, 1, 8, 8), (70, 3))
    assert ids[:, 0].tolist() == [0, 2] * 35
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_plot_gradcam():
    """Inputs above, maps below; classes come from the mistakes, whatever the other arguments say."""
    images, mistakes = normalized_mistakes(MEAN, STD)
    maps = np.random.default_rng(1).random((2, 3, 8, 8))  # layers, images
    wrong_ids = torch.tensor([[2], [2], [2]])
    figure = utils.plot_gradcam(list(maps), ["layer1", "layer4"], CLASSES, (99, 99), wrong_ids, mistakes, MEAN, STD)

    assert figure.get_suptitle() == "Grad-CAM of wrong predictions"
    shown = panels(figure)
    expected = ["actual dog\npredicted cat", "actual cat\npredicted frog", "actual frog\npredicted dog"]
    assert [axes.get_title() for axes in shown[::3]] == expected
    assert [axes.get_ylabel() for axes in shown[:3]] == ["INPUT", "layer1", "layer4"]
    np.testing.assert_array_equal([pixels(axes) for axes in shown[::3]], images)
    overlaid = np.rint(0.5 * images + 0.5 * 255 * colormaps["inferno"](maps)[..., :3]).astype(np.uint8)
    np.testing.assert_array_equal([[pixels(axes) for axes in shown[row::3]] for row in (1, 2)], overlaid)


# ---- showing, and what notebooks of 2023 also had --------------------------------------------------------------------


def test_figures_are_shown_once(monkeypatch):
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


def test_correct_predictions_are_counted():
    assert utils.GetCorrectPredCount(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([1, 1, 1])) == 2


def test_resnet_custom_gives_log_probabilities_as_it_did():
    network = resnet_custom(drop=0.0).eval()
    assert torch.allclose(network(torch.rand(2, 3, 32, 32)).exp().sum(1), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match="weights of the resnet_custom of 2023"):
        network.load_state_dict({"convblock1.0.weight": torch.zeros(64, 3, 3, 3)})


@pytest.mark.unhurried
def test_from_a_bare_clone_in_the_folder_above(tmp_path, run_code):
    """Nothing is installed: `-S -I` would hide torch too, so the folder of this checkout is all that is taken away."""
    root = Path(utils.__file__).parents[1]
    (tmp_path / "era_support_packages").symlink_to(root, target_is_directory=True)
    code = f"""
import sys
sys.path[:] = [''] + [p for p in sys.path if p not in ('', {str(root)!r})]
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]
from era_support_packages.utils import *
import era_support_packages as package
from era_support_packages import bootstrap, ResNet18
print(train.__name__, package.__version__, ResNet18.__name__, bootstrap.project_folder())
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ERA_NOTEBOOK_FOLDER")}
    assert run_code(code, cwd=tmp_path, env=environment).split() == ["train", "1.0.0", "ResNet18", str(tmp_path)]
