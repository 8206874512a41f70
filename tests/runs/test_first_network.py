"""The network that a run begins with is the run's own affair: with the weights that it starts from, or without them."""

import pytest
import torch

from era_support_packages.models.catalog import build_network
from era_support_packages.runs.preparation import prepare

NAME = "torchvision/squeezenet1_1"
FIRST = "features.0.weight"


def test_it_starts_from_the_weights_until_there_is_a_checkpoint(tmp_path):
    file = tmp_path / "w.pth"
    weights = build_network(NAME, 10).state_dict()
    torch.save(weights, file)
    values = {"dataset": "digits", "model": NAME, "weights": str(file), "output_dir": str(tmp_path / "runs"), "device": "cpu"}
    prepared, lines = prepare("smoke", image_size=64, report=lambda line: None, **values), []
    network = prepared.build_model(lines.append)
    assert torch.equal(network.state_dict()[FIRST], weights[FIRST])
    assert [str(file) in line for line in lines] == [True]
    file.unlink()
    with pytest.raises(FileNotFoundError):
        prepared.build_model(lines.append)
    prepared.run.checkpoint_file.touch()  # goes on from it
    assert prepared.build_model(lines.append).state_dict().keys() == weights.keys()
    assert len(lines) == 1
