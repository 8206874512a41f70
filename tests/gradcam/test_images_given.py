"""Images of every form given to `explain`: served, or refused in one sentence of our own. The page in docs lists the same."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from documented_rows import documented_rows
from gradcam_networks import small_images, small_network
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.gradcam import default_layers, explain, image_passes
from era_support_packages.trust.faithfulness import judge
from era_support_packages.trust.sanity.check import check_network

IMAGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "in another floating-point type, or on another device, than the network": (lambda x: x.double(), ""),
    "laid out (N, H, W, 3)": (
        lambda x: x.permute(0, 2, 3, 1),
        "images of shape (3, 8, 8, 3) have their channels in the last axis; bring them to (N, channels, height, width), as "
        "images.permute(0, 3, 1, 2) does",
    ),
    "of another number of channels, such as gray ones for an RGB network": (
        lambda x: x[:, :1],
        "Layer '0' takes 3 channels, and images of shape (3, 1, 8, 8) have 1; give images of 3 channels, gray ones by "
        "images.expand(-1, 3, -1, -1)",
    ),
    "of another size than a network of fixed size takes": (
        lambda x: x[..., :6, :6],
        "images of 6 x 6 px do not go through the network (mat1 and mat2 shapes cannot be multiplied (3x72 and 128x8)); give "
        "them the size that it was made for",
    ),
    "one image (3, H, W) without the axis of a batch": (lambda x: x[0], "images[None] makes a batch of a single image"),
    "no image: (0, 3, H, W)": (lambda x: x[:0], "images of shape (0, 3, 8, 8) are empty; pass at least one image"),
    "uint8, or another whole number": (lambda x: x.byte(), "not (3, 3, 8, 8) torch.uint8; datasets.normalize makes one of"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str) -> None:
    made, sentence = IMAGES[kind]
    images = made(small_images())
    if not sentence:
        np.testing.assert_allclose(
            explain(small_network(), images).maps, explain(small_network(), small_images()).maps, atol=1e-5
        )
        return
    for method in ("gradcam", "eigencam", "fullgrad"):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            explain(small_network(), images, layers=None if method == "fullgrad" else "0", method=method)


def test_the_page_lists_these_images() -> None:
    assert documented_rows("Images") == {kind: "refused" if sentence else "served" for kind, (_, sentence) in IMAGES.items()}


@pytest.mark.parametrize("kind", [kind for kind in IMAGES if kind.startswith(("laid", "of another"))])
def test_everything_that_takes_images_says_so(kind: str) -> None:
    model, images = small_network(), IMAGES[kind][0](small_images())
    for call in (
        lambda: default_layers(model, images),
        lambda: judge(model, images, layers="0"),
        lambda: image_passes(model, images, "0", "scorecam"),
        lambda: check_network(model, images, images),
    ):
        with pytest.raises(ValueError, match=r"channels in the last axis|takes 3 channels|do not go through the network"):
            call()


def test_a_network_that_flattens_takes_no_images_laid_out_otherwise() -> None:
    flat = nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Flatten(), nn.Linear(192, 8))  # as many numbers either way
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 8, 3\) have their channels in the last axis"):
        explain(flat, small_images().permute(0, 2, 3, 1), layers="0")


def test_narrow_images_of_many_channels_are_not_taken_for_another_layout() -> None:
    wide = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert explain(wide, torch.randn(2, 8, 8, 3)).maps.shape == (2, 1, 1, 8, 3)
    head_first = nn.Sequential(nn.Identity(), small_network())
    assert explain(head_first, small_images()).maps.shape[3:] == (8, 8)


class Fixed(nn.Module):
    """Names its size in itself, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.network = 8, small_network()

    def forward(self, images: Tensor) -> Tensor:
        torch._assert(images.shape[2] == self.image_size, f"Wrong image height! Expected 8 but got {images.shape[2]}!")
        return self.network(images)


def classifier(network: nn.Module, resolution: int = 8) -> Classifier:
    return Classifier(network, tuple("abcdefgh"), (0.5,) * 3, (0.25,) * 3, resolution=resolution)


def test_a_network_that_names_its_size_is_quoted() -> None:
    sentence = r"6 x 6 px do not go through the network \(Wrong image height! Expected 8 but got 6\); .* for, 8 x 8 px"
    with pytest.raises(ValueError, match=sentence):
        explain(Fixed(), small_images()[..., :6, :6], layers="network.0")
    for call in (classifier(Fixed(), resolution=6).predict, classifier(Fixed(), resolution=6).explain):
        with pytest.raises(ValueError, match=sentence):
            call(np.zeros((1, 8, 8, 3), np.uint8))


def test_errors_of_the_networks_own_stay_as_they_are() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("the license has expired")

    with pytest.raises(RuntimeError, match=r"^the license has expired$"):
        explain(Broken(), small_images(), layers="conv")


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"np\.moveaxis\(images, -3, -1\) moves the channels to the end"),
        (np.zeros((2, 8, 8), np.uint8), r"gray ones become these by np\.stack\(\[images\] \* 3, axis=-1\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"gray ones become these by np\.repeat\(images, 3, axis=-1\)"),
        (np.full((2, 8, 8, 3), 0.5), r"\(255 \* images\)\.round\(\)\.astype\(np\.uint8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\).*, and at least one\."),
        ([], r"^There are no images and no files; give at least one\.$"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"are uint8 of shape \(2, 8, 8, 4\); give uint8 pixels .* not normalised\.$"),
    ],
)
def test_a_classifier_says_how_an_array_becomes_pixels(images: object, hint: str) -> None:
    for call in (classifier(small_network()).predict, classifier(small_network()).explain):
        with pytest.raises(ValueError, match=hint):
            call(images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_classifier_serves_a_network_of_another_precision(dtype: torch.dtype) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = classifier(small_network()).predict(pixels).logits
    np.testing.assert_allclose(classifier(small_network().to(dtype)).predict(pixels).logits, expected, atol=0.05)


def test_logits_that_are_infinite_by_a_mask_are_not_blamed_on_the_weights() -> None:
    class Masking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small_network()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images).masked_fill(torch.arange(8) == 3, float("-inf"))

    with pytest.raises(ValueError, match="though its weights are finite; check what its forward pass adds"):
        explain(Masking(), small_images(), layers="network.0")
