"""Layers of every kind: explained with the right values, or refused in one sentence. The page in docs lists the same."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from arranged_networks import MAP, RED, Apply, Arranged, from_windows, picture, sequence, windows, with_tokens
from documented_rows import documented_rows
from gradcam_networks import red, small_images, small_network, state
from torch import Tensor, nn

from era_support_packages.gradcam import METHODS, default_layers, explain, image_passes
from era_support_packages.gradcam.cells import Cells
from era_support_packages.gradcam.methods import GRADIENT_METHODS

BY_LAYER = [name for name, method in METHODS.items() if not method.all_layers]


def same(features: Any) -> Any:
    return features


class Beside(Arranged):
    """The convolution goes on to the logits beside `target`, whose forward pass is `step`."""

    def __init__(self, step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__(same, same)
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return self.linear((features + self.step(self.target, features)).mean(dim=(2, 3)))


class Case(NamedTuple):
    """A kind of layer: `target` of a network, refused with a sentence or with the map `MAP`."""

    network: Callable[[], nn.Module]
    refused: str = ""
    plane: list[list[float]] = RED
    reshape: Callable[[Tensor], Tensor] | None = None


FOUR_BY_FOUR = np.arange(16.0).reshape(4, 4).tolist()
OTHER_AXES = "axes that are not images, channels, height and width; choose another layer, or pass reshape=, a function"
MOVED = OTHER_AXES.replace("width;", "width as given (moved, cut or padded on the way);")
WINDOWS = "places split into windows or heads"
LAYERS: dict[str, Case] = {
    "channels first: (N, C, h, w)": Case(lambda: Arranged(same, same)),
    "channels last: (N, h, w, C)": Case(lambda: Arranged(lambda f: f.permute(0, 2, 3, 1), lambda f: f.permute(0, 3, 1, 2))),
    "a sequence of places: (N, h w, C)": Case(lambda: Arranged(sequence, picture)),
    "places behind a class token: (N, 1 + h w, C)": Case(lambda: Arranged(with_tokens(1), lambda t: picture(t[:, 1:]))),
    "places between other tokens: (N, k + h w + m, C)": Case(lambda: Arranged(with_tokens(2, 3), lambda t: picture(t[:, 2:-3]))),
    "places first: (h w, N, C)": Case(
        lambda: Arranged(lambda f: sequence(f).transpose(0, 1), lambda t: picture(t.transpose(0, 1)))
    ),
    "followed by an in-place operation": Case(lambda: Arranged(same, lambda f: f.mul_(1))),
    "any other, with `reshape=`": Case(lambda: Arranged(lambda f: f.flip(3), lambda f: f.flip(3)), reshape=lambda f: f.flip(3)),
    "places split into windows or heads: (N, windows, places, C)": Case(
        lambda: Arranged(windows, from_windows), WINDOWS, FOUR_BY_FOUR
    ),
    "a single window: (N, 1, h w, C)": Case(lambda: Arranged(windows, from_windows), WINDOWS),
    "places or images moved: rolled, flipped, gathered, sorted, resampled": Case(
        lambda: Arranged(lambda f: f.roll(1, 3), lambda f: f.roll(-1, 3)), MOVED
    ),
    "places cut away or padded: a crop, `F.pad`": Case(lambda: Arranged(lambda f: f[..., :2], same), MOVED, FOUR_BY_FOUR),
    "channels in another order": Case(lambda: Arranged(lambda f: f[:, [1, 0]], lambda f: f.flip(1))),
    "behind the last attention of a network with a class token": Case(
        lambda: Arranged(with_tokens(1), lambda t: t[:, 0]),
        "lies behind the last attention",
    ),
    "no places: (N, C)": Case(
        lambda: Arranged(lambda f: f.mean(dim=(2, 3)), same),
        "Layer 'target' gives (2, 2), which has no places, but a class activation map needs (2, channels, height, width); choose",
    ),
    "no tensor: a tuple, a dict": Case(
        lambda: Arranged(lambda f: (f, f), lambda pair: pair[0]),
        "Layer 'target' gives tuple and no tensor; choose a layer inside of it",
    ),
    "more images than were given: (2 N, C, h, w)": Case(
        lambda: Arranged(lambda f: torch.cat([f, f]), lambda f: f[: len(f) // 2]),
        f"Layer 'target' gives (4, 2, 2, 2): {OTHER_AXES}",
    ),
    "runs more than once": Case(
        lambda: Beside(lambda target, features: target(target(features))),
        "Layer 'target' runs more than once in a forward pass; choose a layer that runs once",
    ),
    "does not run": Case(
        lambda: Beside(lambda target, features: features),
        "Layer 'target' does not run in the model's forward pass; choose a layer that does",
    ),
    "no gradient reaches it": Case(
        lambda: Beside(lambda target, features: target(features).detach()),
        "No gradient flows from the logits to layer 'target'; choose a layer on the way to them",
    ),
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [kind for kind, case in LAYERS.items() if not case.refused])
def test_layers_served(kind: str, count: int) -> None:
    case = LAYERS[kind]
    model, images = case.network(), red(case.plane).repeat(count, 1, 1, 1)
    before = state(model)
    found = explain(model, images, [0] * count, "target", reshape=case.reshape)
    np.testing.assert_allclose(found.maps[:, 0, 0], np.repeat([MAP], count, axis=0), atol=1e-5)
    assert found.grids == ((2, 2),)
    assert state(model) == before


@pytest.mark.parametrize("kind", [kind for kind, case in LAYERS.items() if case.refused])
def test_layers_refused_and_the_model_restored(kind: str) -> None:
    case = LAYERS[kind]
    model, image = case.network(), red(case.plane)
    before = state(model)
    for method in GRADIENT_METHODS if kind == "no gradient reaches it" else BY_LAYER:
        with pytest.raises(ValueError, match=re.escape(case.refused)):
            explain(model, image.repeat(2, 1, 1, 1), layers=["conv", "target"], method=method, progress=False)
    with pytest.raises(ValueError, match=re.escape(case.refused.replace("(2,", "(1,").replace("(4,", "(2,"))):
        explain(model, image, layers="target")
    assert state(model) == before


def test_the_page_lists_these_layers() -> None:
    assert documented_rows("Layers") == {kind: "refused" if case.refused else "served" for kind, case in LAYERS.items()}


class Behind(nn.Module):
    """A convolution with a bias behind `step`, which may move the places of the images."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step, self.conv, self.head = step, nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.step(images)).relu().mean(dim=(2, 3))[: len(images)])


def shifted(images: Tensor, start: Tensor) -> Tensor:
    start[..., 1:] = images[..., :-1]
    return start


SWAPPED, BACKWARDS = torch.tensor([1, 0]), torch.arange(7, -1, -1)
MOVING: dict[str, Callable[[Tensor], Tensor]] = {
    "rows chosen": lambda x: x.index_select(2, BACKWARDS),
    "images chosen": lambda x: x.index_select(0, SWAPPED),
    "images indexed": lambda x: x[[1, 0]],
    "images doubled": lambda x: torch.cat([x, x]),
    "the first image for all": lambda x: x[:1].expand_as(x),
    "columns indexed": lambda x: x[..., BACKWARDS],
    "images copied": lambda x: x.clone().index_copy_(0, SWAPPED, x),
    "columns scattered": lambda x: torch.zeros_like(x).scatter(3, BACKWARDS.expand_as(x), x),
    "columns scattered in place": lambda x: x.clone().scatter_(3, BACKWARDS.expand_as(x), x),
    "rows sorted": lambda x: x.sort(2).values,
    "rows summed up": lambda x: x.cumsum(2),
    "frequencies": lambda x: torch.fft.fft2(x).real,
    "assigned to a slice": lambda x: shifted(x, x.clone()),
    "assigned to a slice of zeros": lambda x: shifted(x, torch.zeros(x.shape)),
    "resampled": lambda x: nn.functional.grid_sample(x, torch.zeros(2, 8, 8, 2), align_corners=False),
    "transposed": lambda x: x.transpose(2, 3),
    "cropped": lambda x: x[:, :, :4, :4],
    "one row": lambda x: x[:, :, 3].unsqueeze(2),
    "cropped by padding": lambda x: nn.functional.pad(x, (-2, -2, -2, -2)),
    "padded": lambda x: nn.functional.pad(x, (8, 8, 8, 8)),
    "padded on one side": lambda x: nn.functional.pad(x, (0, 3, 0, 3)),
    "reflected": lambda x: nn.functional.pad(x, (6, 6, 6, 6), mode="reflect"),
}
KEEPING: dict[str, Callable[[Tensor], Tensor]] = {
    "channels indexed": lambda x: x[:, [2, 1, 0]],
    "channels chosen": lambda x: x.index_select(1, torch.tensor([2, 1, 0])),
    "channels flipped": lambda x: x.flip(1),
    "every second place": lambda x: x[:, :, ::2, 1::2],
    "all but one place": lambda x: x[:, :, 1:, :-1],
    "padded as for a convolution": lambda x: nn.functional.pad(x, (1, 2, 1, 2)),
    "padded channels": lambda x: nn.functional.pad(x[:, :2], (0, 0, 0, 0, 0, 1)),
    "channels stacked": lambda x: torch.stack([x[:, 0], x[:, 2], x[:, 1]], dim=1),
    "beside what is put together from constants": lambda x: x + torch.cat([torch.ones(1, 3, 4, 1), torch.zeros(1, 3, 4, 1)], 2),
    "leaky": nn.functional.leaky_relu,
    "resized": lambda x: nn.functional.interpolate(x, size=(5, 5), mode="bilinear"),
}


@pytest.mark.parametrize("how", MOVING)
def test_behind_moved_places_nothing_is_explained(how: str) -> None:
    for method, layers in (("hirescam", "conv"), ("fullgrad", None)):
        with pytest.raises(ValueError, match=r"axes (that are not images|whose meaning does not follow)"):
            explain(Behind(MOVING[how]), small_images(2), layers=layers, method=method)


@pytest.mark.parametrize("how", KEEPING)
def test_behind_what_keeps_the_places_the_map_is_that_of_the_plain_layer(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cells, "share_evenly", lambda _cells, _size: True)  # stretched, as it is where reshape= is given
    model, images = Behind(KEEPING[how]), small_images(2)
    plain = explain(model, images, [0, 1], "conv", "hirescam", reshape=same)
    np.testing.assert_array_equal(explain(model, images, [0, 1], "conv", "hirescam").maps, plain.maps)
    assert plain.maps.max() > 0.9


@pytest.mark.parametrize("method", BY_LAYER)
def test_every_method_gives_the_map_of_channels_first(method: str) -> None:
    images, plain_model = small_images(3), Arranged(same, same)
    plain = explain(plain_model, images, [[0, 1]], "target", method)
    assert plain.maps.max() > 0.9
    for model, reshape in (
        (LAYERS["channels last: (N, h, w, C)"].network(), None),
        (LAYERS["places behind a class token: (N, 1 + h w, C)"].network(), None),
        (Arranged(windows, from_windows), from_windows),
    ):
        found = explain(model, images, [[0, 1]], "target", method, reshape=reshape)
        np.testing.assert_allclose(found.maps, plain.maps, atol=1e-5)
        np.testing.assert_allclose(found.raw_ranges, plain.raw_ranges, atol=1e-5)
        passes = image_passes(model, images, "target", method, reshape=reshape)
        assert passes == image_passes(plain_model, images, "target", method)


CHANGES = "reshape changes the values of what layer '0' gives, repeats them or mixes images"


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (lambda f: f.flatten(2), "reshape makes (2, 6, 64) of what layer '0' gives, (2, 6, 8, 8); it must give (2, channels,"),
        (lambda f: f[:1], "reshape makes (1, 6, 8, 8)"),
        (lambda f: f.mean(1, keepdim=True), CHANGES),
        (lambda f: f.flip(0), CHANGES),
        (lambda f: f.repeat(1, 2, 1, 1), CHANGES),
        (lambda f: f.view(2, 7, -1, 1), "reshape fails on what layer '0' gives, (2, 6, 8, 8): shape '[2, 7, -1, 1]' is invalid"),
    ],
)
def test_what_reshape_may_not_do(reshape: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(small_network(), small_images(2), layers="0", reshape=reshape)


# ---- default layers ----------------------------------------------------------------------------------------------------


def test_the_last_module_of_each_resolution() -> None:
    assert default_layers(small_network(), small_images()) == ("1", "3")
    assert explain(small_network(), small_images()).layers == ("1", "3")
    with pytest.raises(ValueError, match="pass images=, and the last module of each resolution is found"):
        default_layers(small_network())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), "No layer of Sequential gives a grid of places on the way to its"),
        (
            nn.Sequential(Apply(lambda x: x.roll(1, 3)), nn.PReLU(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
            "layer '1' gives (1, 3, 8, 8): name it with layers=, and bring this to",
        ),
    ],
)
def test_networks_without_a_layer_that_can_be_followed(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(model, small_images())


class Attention(nn.Module):
    """A block of a transformer: attention over the normalized tokens, added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.mix(self.norm(tokens)).chunk(3, dim=-1)
        return tokens + nn.functional.scaled_dot_product_attention(queries, keys, values)


class ClassToken(nn.Module):
    """A small vision transformer that classifies by its class token: patches of 2 px, two blocks, eight classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.token = nn.Conv2d(3, 8, 2, stride=2), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks, self.norm, self.head = nn.Sequential(Attention(), Attention()), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        places = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), places], dim=1)
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def test_of_a_network_with_a_class_token_the_input_of_the_last_attention() -> None:
    model = ClassToken()
    assert default_layers(model, small_images()) == ("blocks.1.norm",)
    assert explain(model, small_images(), method="hirescam").maps.max() > 0.9
    nn.init.zeros_(model.head.weight)  # as torchvision starts its ViT
    assert default_layers(model, small_images()) == ("blocks.1.norm",)
    for method in BY_LAYER:
        with pytest.raises(ValueError, match="choose the input of the last attention, which layers=None takes"):
            explain(ClassToken(), small_images(2), layers="blocks.1", method=method, progress=False)
