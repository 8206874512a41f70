"""The sanity check on a small network that learnt something: who passes, who fails, and that nothing is left behind."""

import copy
import re
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradcam_networks import state
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from tiny import tiny_network
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from era_support_packages.gradcam.explanation import explain
from era_support_packages.trust.sanity.check import check_network
from era_support_packages.trust.sanity.randomization import cascade
from era_support_packages.trust.sanity.similarity import rank_correlation
from era_support_packages.trust.sanity.verdict import SanityCheck

READING = Path(__file__).parents[2] / "docs" / "reading-heatmaps.md"


def patches(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with two patches each at a random place: a bright grey one that means nothing, and one whose colour is the class."""
    generator = np.random.default_rng(seed)
    images = generator.normal(0, 0.5, (count, 3, 16, 16))
    classes = generator.integers(0, 3, count)
    for image, own in zip(images, classes, strict=True):
        for channels in ([0, 1, 2], [own]):
            top, left = generator.integers(0, 12, 2)
            image[channels, top : top + 4, left : left + 4] += 1.5 if len(channels) == 1 else 3
    return torch.tensor(images, dtype=torch.float32), torch.tensor(classes)


def untrained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = OrderedDict()
        for number, (inputs, outputs) in enumerate([(3, 8), (8, 16)], start=1):
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers[f"norm{number}"], layers[f"relu{number}"] = nn.BatchNorm2d(outputs), nn.ReLU()
        layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(16, 3))
    return nn.Sequential(layers).eval()


@lru_cache(maxsize=1)
def trained() -> nn.Module:
    """A network that tells the colour of the patch; it is never to be changed."""
    network = untrained().train()
    images, classes = patches(256, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(60):
        part = torch.arange(64 * step, 64 * step + 64) % 256
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images[part]), classes[part]).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    images, classes = patches(200, seed=9)
    with torch.no_grad():
        assert (network.eval()(images).argmax(dim=1) == classes).float().mean() > 0.9, "it learnt its task"
    return network


def unit(maps: Tensor) -> np.ndarray:
    return (maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).detach().numpy()


def edges(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """The size of the grey image's gradient, whatever the network."""
    gray = images.mean(dim=1)
    return unit(gray.diff(dim=1, append=gray[:, -1:]).square() + gray.diff(dim=2, append=gray[:, :, -1:]).square())


def edges_and_gradcam(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """Three fifths edges, two fifths Grad-CAM."""
    return 0.6 * edges(network, images, class_ids) + 0.4 * explain(network, images, class_ids, "relu2").maps[:, 0, 0]


def guided_backpropagation(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """The gradient at the image, of which each ReLU lets only what is positive go back (Springenberg et al. 2014)."""
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    handles = [relu.register_full_backward_hook(lambda _relu, given, _behind: (given[0].clamp(min=0),)) for relu in relus]
    with torch.enable_grad():
        pixels = images.clone().requires_grad_()
        scores = network(pixels).gather(1, torch.from_numpy(class_ids)[:, None]).sum()
        gradient = torch.autograd.grad(scores, pixels)[0]
    for handle in handles:
        handle.remove()
    return unit(gradient.clamp(min=0).amax(dim=1))


def noise(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """A function of the weights alone."""
    seed = int.from_bytes(network.linear.weight.detach().numpy().tobytes()[:8], "little")
    return np.random.default_rng(seed).random((len(images), *images.shape[2:]))


def blank(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    return np.zeros((len(images), *images.shape[2:]))


METHODS = ("gradcam", "hirescam", "eigencam", edges, edges_and_gradcam, guided_backpropagation, noise, blank)


@lru_cache(maxsize=2)
def checked(network: str) -> SanityCheck:
    """All the methods on the trained network, Grad-CAM alone on the untrained one."""
    model, methods = (trained(), METHODS) if network == "trained" else (untrained(), "gradcam")
    return check_network(model, patches(32, 2)[0], patches(128, 1)[0], methods=methods, layers="relu2")


def quick(model: nn.Module | None = None, **changes: object) -> SanityCheck:
    """Two fully random networks, six images."""
    values = {"methods": ["gradcam"], "layers": ["relu1", "relu2"], "draws": 2, "cascades": 1, **changes}
    return check_network(model or trained(), patches(6, 2)[0], patches(20, 1)[0], **values)


PLANTED = {
    "Grad-CAM of the trained network": ("trained", "gradcam", "relu2", True),
    "an edge detector": ("trained", "edges", "", False),
    "60 % edge detector, 40 % Grad-CAM": ("trained", "edges_and_gradcam", "", True),
    "guided backpropagation": ("trained", "guided_backpropagation", "", True),
    "noise drawn by the weights": ("trained", "noise", "", True),
    "Grad-CAM of the untrained network": ("untrained", "gradcam", "relu2", True),
}


@pytest.mark.unhurried
def test_verdicts_on_methods_that_are_known_are_those_that_the_page_shows() -> None:
    text = READING.read_text(encoding="utf-8").split("| the map is of |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == list(PLANTED)
    for name, outcome, correlation, excess, _ in rows:
        network, method, layer, specific = PLANTED[name]
        found = checked(network).verdicts[checked(network).methods.index(method)]
        assert (found.outcome, found.layer, found.class_specific, found.count) == (outcome, layer, specific, 32), name
        assert float(correlation) == pytest.approx(found.correlation.estimate, abs=0.05), name
        assert float(excess) == pytest.approx(found.excess.estimate, abs=0.05), name


@pytest.mark.unhurried
def test_eigencam_is_not_class_specific_and_constant_maps_decide_nothing() -> None:
    check = checked("trained")
    assert check.verdicts[2].class_specific is False
    np.testing.assert_allclose(check.correlations[2, 0, :2], 1, atol=1e-9)
    assert check.curve(2)[1].estimate < 0.95, "it does depend on the layers before it"
    np.testing.assert_array_equal(check.constant[[3, -1]], [[0] * 4, [1] * 4])  # edges and blank
    assert np.isnan(check.correlations[-1]).all()
    assert np.isnan(check.ssim[-1]).all()
    assert check.verdicts[-1].outcome == "undecided"


def test_an_untrained_network_is_pointed_out() -> None:
    assert checked("trained").remark == ""
    remark = checked("untrained").remark
    assert remark.startswith("The network itself is hardly surer of its predictions")
    assert "as one that has learned nothing: passing then says nothing" in remark
    assert checked("untrained").reading().endswith(remark)


def test_rank_correlations_are_those_of_scipy_ties_among_them() -> None:
    check = checked("trained")
    for row, stage, image in [(0, 0, 3), (0, 2, 7), (1, 1, 0), (2, 2, 31)]:
        before, after = check.maps[row, 0, image], check.maps[row, stage + 1, image]
        expected = spearmanr(before.ravel(), after.ravel()).statistic
        assert check.correlations[row, stage, 0, image] == pytest.approx(expected)


@pytest.mark.parametrize(("height", "width", "window"), [(16, 16, 7), (6, 5, 5), (4, 8, 3)])
def test_structural_similarity_has_a_smaller_window_in_small_images(height: int, width: int, window: int) -> None:
    images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    check = check_network(tiny_network(), images, images, methods="gradcam", layers="relu", draws=2)
    assert check.ssim_window == window
    for stage, image in [(0, 0), (1, 3)]:
        before, after = check.maps[0, 0, image], check.maps[0, stage + 1, image]
        expected = structural_similarity(before, after, win_size=window, data_range=1)
        assert check.ssim[0, stage, 0, image] == pytest.approx(expected)


def test_maps_are_those_of_explain_on_the_trained_and_on_each_redrawn_network() -> None:
    check = quick(methods=["hirescam", "gradcam"], seed=4)
    assert check.methods == ("hirescam", "hirescam", "gradcam", "gradcam")
    assert check.layers == ("relu1", "relu2", "relu1", "relu2")
    assert check.stages == ("linear", "conv2 + norm2", "conv1 + norm1")
    images, train_images = patches(6, 2)[0], patches(20, 1)[0]
    networks = [trained(), *(copy.deepcopy(step) for step in cascade(trained(), check.stages, train_images, (4, 0), 64))]
    ids = trained()(images).argmax(dim=1).numpy()
    np.testing.assert_array_equal(check.targets, ids)
    for stage, network in enumerate(networks):
        for half, method in enumerate(["hirescam", "gradcam"]):
            maps = explain(network, images, ids, ["relu1", "relu2"], method).maps[:, 0]
            np.testing.assert_allclose(check.maps[2 * half : 2 * half + 2, stage], maps.swapaxes(0, 1), atol=1e-5)
    assert (check.maps.shape, check.maps.dtype) == ((4, 4, 6, 16, 16), np.float32)
    assert (check.training_images, check.seed) == (20, 4)
    fullgrad = quick(methods=["fullgrad", "gradcam"])  # which has one row for all layers
    assert fullgrad.methods == ("fullgrad", "gradcam", "gradcam")
    assert fullgrad.layers == ("all layers", "relu1", "relu2")


def test_fully_random_networks_are_compared_in_pairs_for_the_classes_of_the_trained_one() -> None:
    seen, own_classes = [], []

    def watching(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(class_ids, trained()(images).argmax(dim=1))
        own_classes.append(network(images).argmax(dim=1).tolist())
        seen.append(explain(network, images, class_ids, "relu2").maps[:, 0, 0])
        return seen[-1]

    check = quick(methods=[watching], draws=3, cascades=1)
    assert len(seen) == 1 + 2 + 3  # the trained network, two partly random ones, three fully random ones
    assert check.targets.tolist() == own_classes[0]
    assert any(classes != own_classes[0] for classes in own_classes), "redrawn networks have classes of their own"
    full = seen[3:]
    np.testing.assert_allclose(check.correlations[0, -1], [rank_correlation(seen[0], maps) for maps in full])
    pairs = [rank_correlation(full[a], full[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(check.random_correlations[0], pairs)
    assert check.ssim.shape == (1, 3, 3, 6)
    assert np.isfinite(check.correlations[0, :2, 0]).any()
    assert np.isnan(check.correlations[0, :2, 1:]).all(), "reached at once: without stages before the last"


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again, other = quick(), quick(), quick(seed=1)
    for name in ("correlations", "ssim", "random_correlations", "maps"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.correlations, other.correlations)
    assert np.array_equal(first.maps[:, 0], other.maps[:, 0])


def test_wrapped_and_half_precision_models_are_checked_as_the_network_they_hold_in_any_gradient_mode() -> None:
    plain = quick()
    for model in (AveragedModel(trained()), nn.DataParallel(trained())):
        np.testing.assert_array_equal(quick(model).correlations, plain.correlations)
    half = quick(copy.deepcopy(trained()).bfloat16())
    np.testing.assert_allclose(half.maps[:, 0], plain.maps[:, 0], atol=0.05)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            np.testing.assert_array_equal(quick().correlations, plain.correlations)


@pytest.mark.usefixtures("global_state_stays")
def test_the_model_is_as_it_was_also_after_an_interrupt() -> None:
    model = copy.deepcopy(trained())
    model.norm1.train()
    model.conv1.weight.requires_grad_(False)
    model.linear.weight.grad = torch.ones(3, 16)
    before, calls = state(model), []

    def method(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        calls.append(network)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return edges(network, images, class_ids)

    quick(model, methods=["gradcam", method])
    assert (len(calls), state(model)) == (5, before)
    with pytest.raises(KeyboardInterrupt):
        quick(model, methods=["gradcam", method])
    assert (len(calls), state(model)) == (8, before)
    assert model not in calls


FEW = "{} must be a normalised float tensor (N, channels, height, width) with N of 2 or more, not {}."
DRAWS = "draws is {}; it must be an integer of at least 2, to compare random networks with each other."
TWICE = "Two methods are called 'edges'; their results could not be told apart: give each its own name."
BYTES = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
BAD_VALUES: list[tuple[dict[str, object], str]] = [
    ({"methods": []}, "methods is empty; name at least one of gradcam.METHODS, or pass a function."),
    ({"methods": "gradcamm"}, "Unknown method 'gradcamm': did you mean 'gradcam' "),
    ({"methods": ["gradcam", edges, edges]}, TWICE),
    ({"draws": 1}, DRAWS.format(1)),
    ({"draws": 2.5}, DRAWS.format(2.5)),
    ({"cascades": 0}, "cascades is 0; it must be an integer from 1 to 2, the number of draws."),
    ({"cascades": 3}, "cascades is 3; it must be an integer from 1 to 2, the number of draws."),
    ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
    ({"images": torch.zeros(1, 3, 16, 16)}, FEW.format("images", "(1, 3, 16, 16) torch.float32")),
    ({"train_images": BYTES}, FEW.format("train_images", "(4, 3, 16, 16) torch.uint8")),
    ({"images": [1, 2]}, FEW.format("images", "list")),
    ({"images": torch.zeros(2, 3, 2, 9)}, "images of 2x9 px are too small to compare; take at least 3x3."),
    ({"train_images": torch.full((2, 3, 8, 8), torch.nan)}, "train_images contain NaN or infinite values; check how they were"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_VALUES, ids=[message[:40] for _, message in BAD_VALUES])
def test_bad_values_are_refused_before_the_network_runs(changes: dict[str, object], message: str) -> None:
    network = tiny_network()
    network.register_forward_hook(lambda *_: pytest.fail("the network ran"))
    images = torch.zeros(4, 3, 16, 16)
    values = {"images": images, "train_images": images, "methods": ["gradcam"], "draws": 2, "cascades": 1, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_network(network, **values)


def logits(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    return network(images).detach().numpy()


def signed(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    return np.linspace(-1, 1, 6 * 256).reshape(6, 16, 16)


@pytest.mark.parametrize(
    ("method", "given"), [(logits, "shape (6, 3) with values from "), (signed, "shape (6, 16, 16) with values from -1 to 1.")]
)
def test_methods_of_the_callers_must_give_maps(method, given: str) -> None:
    message = f"method {method.__name__} must give maps of shape (6, 16, 16) in [0, 1]; it gave {given}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        quick(methods=method)
