"""Default layers of networks whose stages lie in one module, end in a norm, or merge patches by reshaping."""

import numpy as np
import pytest
import torch
from gradcam_networks import small_images
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.gradcam import default_layers, explain


class Merge(nn.Module):
    """Patches of 2 x 2 merged by reshaping, as in timm's Swin: (N, h, w, C) to (N, h/2, w/2, 2 C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        count, height, width, channels = x.shape
        parts = x.reshape(count, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(parts))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x)).relu()


class Stage(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.downsample, self.blocks = Merge(channels // 2), nn.Sequential(Block(channels), Block(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Hierarchy(nn.Module):
    """Stages of 8, 4 and 2 places a side behind one another, then a layer norm and the mean."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 1)
        stages = [nn.Sequential(Block(4), Block(4)), Stage(8), Stage(16)]
        self.stages = nn.ModuleList(stages) if listed else nn.Sequential(*stages)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).permute(0, 2, 3, 1)
        for stage in self.stages if isinstance(self.stages, nn.ModuleList) else [self.stages]:
            x = stage(x)
        return self.head(self.norm(x).mean(dim=(1, 2)))


@pytest.mark.parametrize("listed", [False, True])
def test_the_last_block_of_each_stage_is_found(listed: bool) -> None:
    model = Hierarchy(listed)
    assert default_layers(model, small_images()) == ("stages.0", "stages.1", "stages.2")
    found = explain(model, small_images(), method="hirescam")
    assert found.grids == ((8, 8), (4, 4), (2, 2))
    by_hand = explain(model, small_images(), layers=found.layers, method="hirescam", reshape=lambda x: x.permute(0, 3, 1, 2))
    np.testing.assert_allclose(found.maps, by_hand.maps, atol=1e-6)
    assert found.maps.max() > 0.9


@pytest.mark.parametrize("method", ["fullgrad"])
def test_fullgrad_names_a_way_that_helps_where_a_bias_has_no_place(method: str) -> None:
    class Table(nn.Module):
        """A bias of positions that is made by a linear layer, as in Swin V2."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.positions, self.head = nn.Conv2d(3, 4, 1), nn.Linear(2, 4), nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            table = self.positions(torch.zeros(1, 3, 3, 2)).mean(dim=(1, 2))
            return self.head(self.conv(images).relu().mean(dim=(2, 3)) + table)

    with pytest.raises(ValueError, match=r"layer 'positions' gives \(1, 3, 3, 4\): .*; choose another method\.$"):
        explain(Table(), small_images(), method=method)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    judge = Classifier(Table(), tuple("abcde"), (0.5,) * 3, (0.25,) * 3, resolution=8)
    with pytest.warns(UserWarning, match="FullGrad is left out: "):
        assert len(judge.explore(pixels, 0).explanations) == 9
