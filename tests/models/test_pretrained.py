"""Weights to start from: where they are looked for, what is left out, and what is refused in a sentence."""

import urllib.error
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from era_support_packages import Classifier
from era_support_packages.datasets import load
from era_support_packages.models import libraries
from era_support_packages.models.catalog import build_network
from era_support_packages.models.pretrained import WeightsError, ensure, own_statistics, start
from era_support_packages.training import build_model, normalized_for, prepare_config
from era_support_packages.training.config import TrainingConfig

pytest.importorskip("torchvision")
NAME = "torchvision/squeezenet1_1"
FIRST, LAST = "features.0.weight", "classifier.1.weight"


@pytest.fixture(scope="module")
def weights():
    """Of the network for 7 classes."""
    torch.manual_seed(5)
    return build_network(NAME, 7).state_dict()


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Where weights may lie, both empty: the folder of ERA_WEIGHTS_DIR, and that of torch's hub; there is no network."""
    monkeypatch.setenv("ERA_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for folder in ("weights", "hub/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)

    def no_network(*_, **__):
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    own = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    found = SimpleNamespace(url="https://example.org/squeeze.pth", transforms=lambda: own)
    monkeypatch.setattr(libraries, "torchvision_weights", lambda name: found)
    return tmp_path


@pytest.mark.parametrize("folder", ["weights", "hub/checkpoints"])
def test_weights_on_this_machine_are_taken_and_the_head_starts_anew(folder, at, weights):
    torch.save(weights, at / folder / "squeeze.pth")
    network = build_network(NAME, 3)
    last = network.state_dict()[LAST].clone()
    ensure(NAME, True, None)
    said = start(network, NAME, True, None)
    assert f"{at / folder / 'squeeze.pth'}); its last layer, 'classifier.1', has 7 classes there and starts anew for 3." in said
    assert torch.equal(network.state_dict()[FIRST], weights[FIRST])
    assert torch.equal(network.state_dict()[LAST], last)


def test_a_download_is_kept_in_the_hub(at, weights, monkeypatch):
    asked = []

    def download(url, file, hash_prefix, progress):
        asked.append((url, hash_prefix))
        torch.save(weights, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert "classifier.1" not in start(build_network(NAME, 7), NAME, True, None)  # the head fits
    assert asked == [("https://example.org/squeeze.pth", None)]


def test_weights_that_cannot_be_had_are_one_sentence_with_the_way_out(at):
    with pytest.raises(WeightsError) as raised:
        ensure(NAME, True, None)
    said = str(raised.value)
    assert "cannot be downloaded ([Errno 101] Network is unreachable): put squeeze.pth (https://example.org/squeeze.pth)" in said
    assert "ERA_WEIGHTS_DIR" in said
    assert "pretrained=False" in said
    assert not list((at / "hub/checkpoints").iterdir())


def test_damaged_weights_are_named(at, weights, monkeypatch):
    found = SimpleNamespace(url="https://example.org/squeeze-0123abcd.pth")
    monkeypatch.setattr(libraries, "torchvision_weights", lambda name: found)
    torch.save(weights, at / "weights" / "squeeze-0123abcd.pth")
    with pytest.raises(WeightsError, match="is damaged"):
        ensure(NAME, True, None)


@pytest.mark.parametrize("kind", ["plain", "wrapped", "parallel", "old", "safetensors"])
def test_a_file_of_weights_is_read_as_it_comes(kind, tmp_path, weights):
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file({name: value.clone() for name, value in weights.items()}, file)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": weights}, file)
    elif kind == "parallel":
        torch.save({f"module.{name}": value for name, value in weights.items()}, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=kind != "old")
    network = build_network(NAME, 7)
    assert start(network, NAME, False, str(file)) == f"{NAME} starts with the weights of {file}."
    assert torch.equal(network.state_dict()[LAST], weights[LAST])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"features.0.weight": torch.zeros(3)},
            "another network than torchvision/squeezenet1_1: 'features.0.weight' is \\(3,\\)",
        ),
        ({"other": torch.zeros(3)}, "and [0-9]+ more. Give the model that they were made for"),
        ({"epoch": 3}, "holds no weights by name"),
        ([1], "holds no table of weights"),
        (print, "holds something other than tensors and plain values, and was not executed"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_network_stays(content, sentence, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    network = build_network(NAME, 3)
    before = network.state_dict()[FIRST].clone()
    with pytest.raises(WeightsError, match=sentence):
        start(network, NAME, False, str(tmp_path / "w.pth"))
    assert torch.equal(network.state_dict()[FIRST], before)
    with pytest.raises(WeightsError, match="there is no such file"):
        ensure(NAME, False, str(tmp_path / "none.pth"))


def test_a_run_starts_with_them_normalized_as_they_want_and_is_saved_by_name(at, weights, tmp_path):
    torch.save(weights, at / "weights" / "squeeze.pth")
    train, test = load("digits", image_size=64, fit="crop")
    config = prepare_config(TrainingConfig.preset("cpu", model=NAME), train)
    assert (config.pretrained, config.whitening, config.residual_start, config.norm_bias_lr) == (True, False, "random", 1.0)
    assert (config.max_lr, config.resolutions) == (0.01, ((32, 0.6), (48, 0.4)))
    with pytest.raises(ValueError, match=r"training\.normalized_for"):
        build_model(config, 10, train)
    train, test = normalized_for(config, train, test)
    assert test.mean == (0.485, 0.456, 0.406)
    lines = []
    network = build_model(config, 10, test, report=lines.append)
    assert "starts with the weights of" in lines[0]
    assert torch.equal(network.state_dict()[FIRST].cpu(), weights[FIRST])
    classifier = Classifier(network.eval(), test.classes, test.mean, test.std, 48, model=NAME, image_size=64, fit="crop")
    again = Classifier.load(classifier.save(tmp_path / "c.pt"), device="cpu", precision="fp32")
    assert (again.model, again.mean, again.image_size, again.fit) == (NAME, test.mean, 64, "crop")
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert np.allclose(again.predict(photo).logits, classifier.predict(photo).logits, atol=1e-5)


def test_a_file_of_this_package_brings_its_statistics(tmp_path):
    classifier = Classifier(build_network("ResNet18", 3), ("a", "b", "c"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32, model="ResNet18")
    file = classifier.save(tmp_path / "c.pt")
    assert own_statistics("ResNet18", False, str(file)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert own_statistics("ResNet18", False, None) is None
    assert "'linear', has 3 classes there and starts anew for 2" in start(
        build_network("ResNet18", 2), "ResNet18", False, str(file)
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pretrained": True}, "pretrained is True, but there are no weights of 'ResNet18': set model to one of torchvision's"),
        (
            {"pretrained": True, "model": NAME, "weights": "w.pth"},
            "pretrained is True and weights is 'w.pth': give one of the two",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig.preset("cpu", **values)
