"""The ten methods by name, and what each says of itself."""

import pytest
import torch
from gradcam_networks import Passes, layers_for, small_images, small_network

from era_support_packages.gradcam.explanation import explain, image_passes
from era_support_packages.gradcam.method_names import METHOD_NAMES
from era_support_packages.gradcam.methods import GRADIENT_METHODS, METHODS, check_method

GRADIENT = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam")


def test_there_are_ten_methods_each_by_its_class_of_the_library() -> None:
    assert {name: method.library.__name__ for name, method in METHODS.items()} == {
        "gradcam": "GradCAM",
        "gradcam++": "GradCAMPlusPlus",
        "hirescam": "HiResCAM",
        "xgradcam": "XGradCAM",
        "layercam": "LayerCAM",
        "eigengradcam": "EigenGradCAM",
        "eigencam": "EigenCAM",
        "scorecam": "ScoreCAM",
        "ablationcam": "AblationCAM",
        "fullgrad": "FullGrad",
    }
    assert tuple(METHODS) == METHOD_NAMES  # where they are known without an import that takes seconds
    assert GRADIENT_METHODS == GRADIENT
    for name, method in METHODS.items():
        assert method.title.lower().replace("-", "") == name
        assert method.idea
        assert method.source


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_the_passes_it_says(method: str) -> None:
    model, images = small_network(), small_images(2)
    layers = layers_for(method, "0", "2")
    expected = image_passes(model, images, layers, method, classes=3)
    count = Passes(model)
    explain(model, images, [[0, 1, 2]] * 2, layers, method, batch_size=5, progress=False)
    assert sum(count.images) == (2 * (1 + 6 + 8) if METHODS[method].pass_per_channel else 2)
    assert expected == sum(count.images) + 2 * 2 * count.backward  # two images in each backward pass, which counts double
    assert count.backward == (3 if METHODS[method].needs_gradients else 0)
    assert max(count.images) <= 5


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_without_a_class_give_every_class_the_same_map(method: str) -> None:
    maps = explain(small_network(), small_images(), [[0, 1]] * 3, layers_for(method, "1", "3"), method).maps
    same = [bool((image[0] == image[1]).all()) for image in maps]
    assert same == [not METHODS[method].class_specific] * 3


def test_methods_without_gradients_explain_layers_that_none_reaches() -> None:
    class CutOff(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.conv(images).detach().relu().mean(dim=(2, 3)))

    for method in ("eigencam", "scorecam", "ablationcam"):
        assert explain(CutOff(), small_images(), layers="conv", method=method).maps.max() > 0.9


def test_unknown_methods_are_refused_with_the_nearest_names() -> None:
    for name in METHODS:
        check_method(name)
    for given, nearest in (
        ("gradcan", "'gradcam' or 'xgradcam' or 'gradcam++'"),
        ("HiResCAM", "'hirescam' or "),
        (["gradcam"], "'gradcam' or 'xgradcam' or 'gradcam++'"),
    ):
        with pytest.raises(ValueError, match=r"^Unknown method ") as caught:
            check_method(given)
        assert str(caught.value).startswith(f"Unknown method {given!r}: did you mean {nearest}")
