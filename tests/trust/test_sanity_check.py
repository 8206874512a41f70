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
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from tiny import tiny_network
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from era_support_packages.gradcam.explanation import explain
from era_support_packages.trust.sanity.check import check_network
from era_support_packages.trust.sanity.randomization import cascade
from era_support_packages.trust.sanity.similarity import rank_correlation
from era_support_packages.trust.sanity.verdict import SanityCheck, Verdict

READING = Path(__file__).parents[2] / "docs" / "reading-heatmaps.md"
STAGES = ("linear", "conv2 + norm2", "conv1 + norm1")


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
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 8, 3, padding=1, bias=False),
                norm1=nn.BatchNorm2d(8),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(8, 16, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(16),
                relu2=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(16, 3),
            )
        ).eval()


@lru_cache(maxsize=1)
def trained() -> nn.Module:
    """A network that tells the colour of the patch; it is never to be changed."""
    network = untrained().train()
    images, classes = patches(256, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(60):
        part = torch.arange(64 * step, 64 * step + 64) % 256
        loss = F.cross_entropy(network(images[part]), classes[part])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return network.eval()


def unit(maps: Tensor) -> np.ndarray:
    return (maps / maps.amax(dim=(1, 2), keepdim=True)).detach().cpu().numpy()


def edges(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """The size of the grey image's gradient, whatever the network."""
    gray = images.mean(dim=1)
    return unit(gray.diff(dim=1, append=gray[:, -1:]).square() + gray.diff(dim=2, append=gray[:, :, -1:]).square())


def remembers(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """Grad-CAM of the trained network, whatever network it is given."""
    return explain(trained(), images, class_ids, "relu2").maps[:, 0, 0]


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
    return unit(gradient.clamp(min=0).amax(dim=1).clamp(min=1e-12))


def noise(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    """A function of the weights alone."""
    seed = int.from_bytes(network.linear.weight.detach().numpy().tobytes()[:8], "little")
    return np.random.default_rng(seed).random((len(images), *images.shape[2:]))


def blank(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
    return np.zeros((len(images), *images.shape[2:]))


@lru_cache(maxsize=1)
def everything() -> SanityCheck:
    methods = ["gradcam", "hirescam", "eigencam", edges, remembers, noise, blank]
    return check_network(trained(), patches(32, 2)[0], patches(128, 1)[0], methods=methods, layers="relu2")


def quick(model: nn.Module | None = None, **changes: object) -> SanityCheck:
    """Two fully random networks, six images."""
    values = {"methods": ["gradcam"], "layers": ["relu1", "relu2"], "draws": 2, "cascades": 1, **changes}
    return check_network(model or trained(), patches(6, 2)[0], patches(20, 1)[0], **values)


def verdict_on(method: str) -> Verdict:
    return everything().verdicts[everything().methods.index(method)]


# ---- what the limits can and cannot tell -----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def planted() -> dict[str, SanityCheck]:
    methods = ["gradcam", edges, edges_and_gradcam, guided_backpropagation, noise]
    images = patches(32, 2)[0], patches(128, 1)[0]
    return {
        "trained": check_network(trained(), *images, methods=methods, layers="relu2"),
        "untrained": check_network(untrained(), *images, methods="gradcam", layers="relu2"),
    }


PLANTED = {
    "Grad-CAM of the trained network": ("trained", "gradcam"),
    "an edge detector": ("trained", "edges"),
    "60 % edge detector, 40 % Grad-CAM": ("trained", "edges_and_gradcam"),
    "guided backpropagation": ("trained", "guided_backpropagation"),
    "noise drawn by the weights": ("trained", "noise"),
    "Grad-CAM of the untrained network": ("untrained", "gradcam"),
}


def test_the_page_shows_the_planted_cases() -> None:
    text = READING.read_text(encoding="utf-8").split("| the map is of |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == list(PLANTED)
    for name, outcome, correlation, excess, _ in rows:
        network, method = PLANTED[name]
        check = planted()[network]
        found = check.verdicts[check.methods.index(method)]
        assert outcome == found.outcome, name
        assert float(correlation) == pytest.approx(found.correlation.estimate, abs=0.05), name
        assert float(excess) == pytest.approx(found.excess.estimate, abs=0.05), name


def test_an_untrained_network_is_pointed_out() -> None:
    assert planted()["trained"].remark == ""
    remark = planted()["untrained"].remark
    assert remark.startswith("The network itself is hardly surer of its predictions")
    assert "as one that has learned nothing: passing then says nothing" in remark
    assert planted()["untrained"].reading().endswith(remark)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_the_network_learned_its_task() -> None:
    network, (images, classes) = trained(), patches(200, seed=9)
    with torch.no_grad():
        assert (network(images).argmax(dim=1) == classes).float().mean() > 0.9


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_gradient_methods_pass_and_are_class_specific(method: str) -> None:
    verdict = verdict_on(method)
    assert verdict.outcome == "passes", verdict.sentence
    assert verdict.class_specific
    assert (verdict.layer, verdict.count) == ("relu2", 32)


def test_eigencam_is_not_class_specific() -> None:
    assert not verdict_on("eigencam").class_specific
    np.testing.assert_allclose(everything().correlations[2, 0, :2], 1, atol=1e-9)
    assert everything().curve(2)[1].estimate < 0.95, "it does depend on the layers before it"


@pytest.mark.parametrize("method", ["edges", "remembers"])
def test_what_ignores_the_weights_fails(method: str) -> None:
    verdict = verdict_on(method)
    assert (verdict.outcome, verdict.class_specific, verdict.layer) == ("fails", False, "")
    assert verdict.correlation.estimate == pytest.approx(1)
    assert verdict.excess.estimate == pytest.approx(0), "beside other random networks alone it would pass"


def test_noise_that_changes_with_the_weights_passes_as_the_limits_say() -> None:
    assert verdict_on("noise").outcome == "passes"


def test_constant_maps_are_counted_and_decide_nothing() -> None:
    row = everything().methods.index("blank")
    np.testing.assert_array_equal(everything().constant[row], [1, 1, 1, 1])
    assert np.isnan(everything().correlations[row]).all()
    assert np.isnan(everything().ssim[row]).all()
    assert verdict_on("blank").outcome == "undecided"
    row = everything().methods.index("edges")
    np.testing.assert_array_equal(everything().constant[row], [0, 0, 0, 0])


# ---- values ----------------------------------------------------------------------------------------------------------


def test_rank_correlations_by_hand() -> None:
    rising = np.array([[0.0, 1.0], [2.0, 30.0]])
    assert rank_correlation(rising, rising) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    # Ranks 1.5 1.5 3 4 and 1 2.5 2.5 4, less their mean 2.5: -1 -1 0.5 1.5 and -1.5 0 0 1.5; 3.75 over 4.5.
    tied = np.array([[[0.0, 0.0], [1.0, 2.0]]]), np.array([[[0.0, 1.0], [1.0, 2.0]]])
    np.testing.assert_allclose(rank_correlation(*tied), [3.75 / 4.5])
    assert np.isnan(rank_correlation(rising, np.full((2, 2), 0.3)))


def test_similarities_are_those_of_scipy_and_scikit_image() -> None:
    check = everything()
    for row, stage, image in [(0, 0, 3), (0, 2, 7), (1, 1, 0), (2, 2, 31)]:
        before, after = check.maps[row, 0, image], check.maps[row, stage + 1, image]
        expected = spearmanr(before.ravel(), after.ravel()).statistic
        assert check.correlations[row, stage, 0, image] == pytest.approx(expected)
        similarity = structural_similarity(before, after, win_size=7, data_range=1)
        assert check.ssim[row, stage, 0, image] == pytest.approx(similarity)
    assert check.ssim_window == 7


def test_small_images_have_a_smaller_window() -> None:
    images = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    check = check_network(tiny_network(), images, images, methods="gradcam", layers="relu", draws=2)
    assert check.ssim_window == 5
    before, after = check.maps[0, :2, 0]
    assert check.ssim[0, 0, 0, 0] == pytest.approx(structural_similarity(before, after, win_size=5, data_range=1))
    even = torch.randn(4, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    assert check_network(tiny_network(), even, even, methods="gradcam", layers="relu", draws=2).ssim_window == 3


def test_maps_are_those_of_explain_on_the_trained_and_on_each_redrawn_network() -> None:
    check = quick(methods=["hirescam", "gradcam"], seed=4)
    assert check.methods == ("hirescam", "hirescam", "gradcam", "gradcam")
    assert check.layers == ("relu1", "relu2", "relu1", "relu2")
    assert check.stages == STAGES
    images, train_images = patches(6, 2)[0], patches(20, 1)[0]
    networks = [trained(), *(copy.deepcopy(step) for step in cascade(trained(), STAGES, train_images, (4, 0), 64))]
    ids = trained()(images).argmax(dim=1).numpy()
    np.testing.assert_array_equal(check.targets, ids)
    for stage, network in enumerate(networks):
        for half, method in enumerate(["hirescam", "gradcam"]):
            maps = explain(network, images, ids, ["relu1", "relu2"], method).maps[:, 0]
            np.testing.assert_allclose(check.maps[2 * half : 2 * half + 2, stage], maps.swapaxes(0, 1), atol=1e-5)
    assert (check.maps.shape, check.maps.dtype) == ((4, 4, 6, 16, 16), np.float32)
    assert (check.training_images, check.seed) == (20, 4)


def test_fully_random_networks_are_compared_in_pairs() -> None:
    seen = []

    def watching(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        seen.append(explain(network, images, class_ids, "relu2").maps[:, 0, 0])
        return seen[-1]

    check = quick(methods=[watching], draws=3, cascades=1)
    assert len(seen) == 1 + 2 + 3  # the trained network, two partly random ones, three fully random ones
    full = seen[3:]
    np.testing.assert_allclose(check.correlations[0, -1], [rank_correlation(seen[0], maps) for maps in full])
    pairs = [rank_correlation(full[a], full[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(check.random_correlations[0], pairs)
    assert check.ssim.shape == (1, 3, 3, 6)
    assert np.isfinite(check.correlations[0, :2, 0]).any()
    assert np.isnan(check.correlations[0, :2, 1:]).all(), "reached at once: without stages before the last"


def test_the_classes_explained_stay_those_of_the_trained_network() -> None:
    seen = []

    def watching(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        seen.append((class_ids.copy(), network(images).argmax(dim=1).numpy()))
        return edges(network, images, class_ids)

    check = quick(methods=[watching])
    assert all(np.array_equal(ids, check.targets) for ids, _ in seen)
    assert np.array_equal(seen[0][1], check.targets)
    assert any(not np.array_equal(own, check.targets) for _, own in seen)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again, other = quick(), quick(), quick(seed=1)
    for name in ("correlations", "ssim", "random_correlations", "maps"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.correlations, other.correlations)
    assert np.array_equal(first.maps[:, 0], other.maps[:, 0])


def test_fullgrad_has_one_row_for_all_layers() -> None:
    check = quick(methods=["fullgrad", "gradcam"])
    assert check.methods == ("fullgrad", "gradcam", "gradcam")
    assert check.layers == ("all layers", "relu1", "relu2")


def test_wrapped_and_half_precision_models_are_checked_as_the_network_they_hold() -> None:
    plain = quick()
    np.testing.assert_array_equal(quick(AveragedModel(trained())).correlations, plain.correlations)
    np.testing.assert_array_equal(quick(nn.DataParallel(trained())).correlations, plain.correlations)
    half = quick(copy.deepcopy(trained()).bfloat16())
    np.testing.assert_allclose(half.maps[:, 0], plain.maps[:, 0], atol=0.05)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(context: type[torch.no_grad]) -> None:
    expected = quick(layers="relu2")
    with context():
        np.testing.assert_array_equal(quick(layers="relu2").correlations, expected.correlations)


# ---- nothing is left behind --------------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> tuple[object, ...]:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(module, module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    gradients = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    return tensors, flags, gradients


def same(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    tensors = all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    gradients = all(a[0] is b[0] and a[1] == b[1] and a[2] is b[2] for a, b in zip(before[2], after[2], strict=True))
    return tensors and before[1] == after[1] and gradients


@pytest.mark.parametrize("failing", [False, True])
def test_the_model_and_global_random_states_are_as_they_were(failing: bool) -> None:
    model = copy.deepcopy(trained())
    model.norm1.train()
    model.conv1.weight.requires_grad_(False)
    model.linear.weight.grad = torch.ones(3, 16)
    before = snapshot(model)
    calls = []

    def method(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        calls.append(network)
        if failing and len(calls) == 3:
            raise KeyboardInterrupt
        return edges(network, images, class_ids)

    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    if failing:
        with pytest.raises(KeyboardInterrupt):
            quick(model, methods=["gradcam", method])
    else:
        quick(model, methods=["gradcam", method])
    assert model not in calls
    assert same(before, snapshot(model))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


# ---- refusals --------------------------------------------------------------------------------------------------------

FEW = torch.zeros(1, 3, 16, 16)
BAD_VALUES = {
    "no method": ({"methods": []}, "methods is empty; name at least one of gradcam.METHODS, or pass a function."),
    "same name": (
        {"methods": ["gradcam", edges, edges]},
        "two methods are called 'edges'; their results could not be told apart: give each its own name.",
    ),
    "one draw": ({"draws": 1}, "draws is 1; it must be an integer of at least 2, to compare random networks with each other."),
    "half a draw": (
        {"draws": 2.5},
        "draws is 2.5; it must be an integer of at least 2, to compare random networks with each other.",
    ),
    "no cascade": ({"cascades": 0}, "cascades is 0; it must be an integer from 1 to 2, the number of draws."),
    "many cascades": ({"cascades": 3}, "cascades is 3; it must be an integer from 1 to 2, the number of draws."),
    "batch size": ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
    "one image": (
        {"images": FEW},
        "images must be a normalised float tensor (N, channels, height, width) with N of 2 or more, not (1, 3, 16, 16) "
        "torch.float32.",
    ),
    "pixels": (
        {"train_images": torch.zeros(4, 3, 16, 16, dtype=torch.uint8)},
        "train_images must be a normalised float tensor (N, channels, height, width) with N of 2 or more, not (4, 3, 16, 16) "
        "torch.uint8.",
    ),
    "no tensor": (
        {"images": [1, 2]},
        "images must be a normalised float tensor (N, channels, height, width) with N of 2 or more, not list.",
    ),
    "too small": ({"images": torch.zeros(2, 3, 2, 9)}, "images of 2x9 px are too small to compare; take at least 3x3."),
    "not finite": (
        {"train_images": torch.full((2, 3, 8, 8), torch.nan)},
        "train_images contain NaN or infinite values; check how they were normalised.",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_are_refused_before_the_network_runs(changes: dict[str, object], message: str) -> None:
    network = tiny_network()
    network.register_forward_hook(lambda *_: pytest.fail("the network ran"))
    images = torch.zeros(4, 3, 16, 16)
    values = {"images": images, "train_images": images, "methods": ["gradcam"], "draws": 2, "cascades": 1, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_network(network, **values)


def test_unknown_methods_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^Unknown method 'gradcamm': did you mean 'gradcam' "):
        quick(methods="gradcamm")


def test_methods_of_the_callers_must_give_maps() -> None:
    def logits(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        return network(images).detach().numpy()

    def signed(network: nn.Module, images: Tensor, class_ids: np.ndarray) -> np.ndarray:
        return np.linspace(-1, 1, 6 * 256).reshape(6, 16, 16)

    message = "method logits must give maps of shape (6, 16, 16) in [0, 1]; it gave shape (6, 3) with values from "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        quick(methods=logits)
    message = "method signed must give maps of shape (6, 16, 16) in [0, 1]; it gave shape (6, 16, 16) with values from -1 to 1."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        quick(methods=signed)
