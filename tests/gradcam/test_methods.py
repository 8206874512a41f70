"""The ten methods by name, and what each says of itself."""

import re

import pytest
import torch
from gradcam_networks import Passes, layers_for, small_images, small_network

from era_support_packages.gradcam.explanation import explain, image_passes
from era_support_packages.gradcam.method_names import METHOD_NAMES
from era_support_packages.gradcam.methods import GRADIENT_METHODS, METHODS, check_method

OF_THE_LIBRARY = "GradCAM GradCAMPlusPlus HiResCAM XGradCAM LayerCAM EigenGradCAM EigenCAM ScoreCAM AblationCAM FullGrad"


def test_there_are_ten_methods_each_by_its_class_of_the_library() -> None:
    assert " ".join(method.library.__name__ for method in METHODS.values()) == OF_THE_LIBRARY
    assert tuple(METHODS) == METHOD_NAMES  # where they are known without an import that takes seconds
    assert GRADIENT_METHODS == ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam")
    for name, method in METHODS.items():
        assert method.library.__name__.lower().replace("plusplus", "++") == name == method.title.lower().replace("-", "")
        assert method.idea
        assert method.source


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_the_passes_it_says_and_gives_every_class_its_own_map_where_it_has_one(method: str) -> None:
    model, images, layers = small_network(), small_images(2), layers_for(method, "0", "2")
    expected = image_passes(model, images, layers, method, classes=3)
    count = Passes(model)
    maps = explain(model, images, [[0, 1, 2]] * 2, layers, method, batch_size=5, progress=False).maps
    assert sum(count.images) == (2 * (1 + 6 + 8) if METHODS[method].pass_per_channel else 2)
    assert expected == sum(count.images) + 2 * 2 * count.backward  # two images in each backward pass, which counts double
    assert count.backward == (3 if METHODS[method].needs_gradients else 0)
    assert max(count.images) <= 5
    assert [bool((image[0] == image[1]).all()) for image in maps] == [not METHODS[method].class_specific] * 2


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


NEAR_GRADCAM = "'gradcam' or 'xgradcam' or 'gradcam++'"


@pytest.mark.parametrize(
    ("given", "nearest"), [("gradcan", NEAR_GRADCAM), ("HiResCAM", "'hirescam' or "), (["gradcam"], NEAR_GRADCAM)]
)
def test_unknown_methods_are_refused_with_the_nearest_names(given: object, nearest: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Unknown method {given!r}: did you mean {nearest}")):
        check_method(given)
