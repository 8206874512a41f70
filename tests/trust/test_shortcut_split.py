"""Whose images carry the mark: a run that was stopped has looked at its validation images alone."""

import dataclasses

import torch
from shortcut_results import made_up_maps, made_up_result
from torch import nn

from era_support_packages import Classifier, load
from era_support_packages.trust.shortcut import find, plant


def test_the_captions_name_the_split_of_the_images():
    train, test = load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 32, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    planted = plant(Classifier(network, test.classes, test.mean, test.std, resolution=16), train, held_out=20)
    validation = dataclasses.replace(test, split="validation")
    assert find(planted, validation, layers="1", count=20).split == "validation"
    result = made_up_result(made_up_maps("gradcam", "layer2", 99, 100))
    for split in ("test", "validation"):
        named = dataclasses.replace(result, split=split)
        for table in (named.table(), named.score_table()):
            assert f"Percent of 100 marked {split} images; " in table.caption
