"""Where the cells of a layer look, of networks of which that is known; and the page has what is stored."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kernel", "padding", "left", "top", "right", "down"),
    [(1, 0, 0, 0, -0.5, -0.5), (3, 1, 0, 0, -0.5, -0.5), (3, 0, 0, 1, 0.5, -0.5), (2, 0, 0, 0, 0, 0)],
)
def test_where_the_middle_cells_look(kernel, padding, left, top, right, down):
    """Of a convolution of stride 2 with equal weights: 2x2 cells see the middle, 3x3 ones half a cell off by their padding."""
    import placement

    ends = (left, 1 - left, top, 1 - top) if kernel == 3 and not padding else (0, 0, 0, 0)
    ends = (0, 1, 1, 0) if (left, top) == (0, 1) else ends
    network = nn.Sequential(nn.ZeroPad2d(ends), nn.Conv2d(3, 2, kernel, stride=2, padding=padding, bias=False))
    nn.init.ones_(network[1].weight)
    side, below, beside = placement.looked_at(network, "1", torch.ones(2, 3, 16, 16))
    assert side == 8
    assert (below, beside) == pytest.approx((down, right))


@pytest.mark.unhurried
def test_photographs_and_a_row_for_each_layer():
    import placement

    images = placement.pictures()
    assert images.shape == (24, 3, 224, 224)
    assert images[0].equal(images[1].flip(2))
    assert images[0].equal(images[2].flip(1))
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, 2, stride=2))
    first, second = placement.rows_of("a network", network, ["0", "1"], images[:2, :, :8, :8])
    assert (first["grid"], second["grid"]) == ("8x8", "4x4")
    for row, cell in ((first, 1), (second, 2)):
        assert row["cells"] == pytest.approx(max(abs(row["down px"]), abs(row["right px"])) / cell, abs=0.01)


def test_the_page_has_the_stored_places():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    stored = json.loads((ROOT / "benchmarks" / "results" / "placement.json").read_text())
    for row in stored["rows"]:
        numbers = [f"{row[name]:+.1f}" for name in ("down px", "right px")]
        assert " | ".join([f"| {row['network']}, {row['px']} px", f"`{row['layer']}`", row["grid"], *numbers]) in page, row
    assert f"{stored['ratio']:.2f} of a cell" in page
