"""What an exported file says is what its network says, for batches of any size."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, MEAN, STD, colored_images, tiny_network
from torch import nn

from era_support_packages.classifier import Classifier
from era_support_packages.models import resnet_custom
from era_support_packages.runs import exporting
from era_support_packages.runs.export_formats import FORMATS, ExportFormat
from era_support_packages.runs.exporting import ExportError, export
from era_support_packages.runs.folder import RunError

NAMES = ("red", "grün", "blue")
IMAGES = colored_images(100, size=16, classes=NAMES)
SHOWN = IMAGES.images.transpose(0, 3, 1, 2).astype(np.float32) / 255


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A network with drawn weights whose norms have seen images, in memory as training leaves it."""
    torch.manual_seed(0)
    network = resnet_custom(num_classes=3).to(memory_format=torch.channels_last)
    for _ in range(3):
        network(torch.randn(8, 3, 16, 16))
    return Classifier(network.eval(), NAMES, MEAN, STD, resolution=16, model="resnet_custom")


def needs(to: str) -> None:
    for name in FORMATS[to].packages:
        pytest.importorskip(name, reason=f"needs {name}: pip install 'era-support-packages[export]'")


def said_by(to: str, file: Any) -> tuple[Any, dict[str, str]]:
    """A file opened by what others open it with: images (N, 3, 16, 16) to logits; and the texts in it."""
    if to == "onnx":
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert onnx.load(str(file)).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        return lambda images: session.run(None, {"images": images})[0], session.get_modelmeta().custom_metadata_map
    names = ("classes", "input", "resolution", "normalization", "mean", "std", "network", "output", "era_support_packages")
    if to == "torch":
        texts = dict.fromkeys(names, "")
        module = torch.export.load(str(file), extra_files=texts).module()
        return lambda images: module(torch.from_numpy(images)).detach().numpy(), texts
    from safetensors import safe_open

    with safe_open(str(file), "pt") as opened:
        texts, weights = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    network = resnet_custom(num_classes=3)
    network.load_state_dict(weights)
    mean, std = (np.float32(json.loads(texts[name]))[:, None, None] for name in ("mean", "std"))
    return lambda images: network.eval()(torch.from_numpy((images - mean) / std)).detach().numpy(), texts


@pytest.mark.unhurried
@pytest.mark.parametrize("to", FORMATS)
def test_a_file_agrees_with_the_network_on_100_images_one_by_one_and_in_batches(to, classifier, tmp_path):
    needs(to)
    file = export(classifier, to, tmp_path / "new folder" / f"it{FORMATS[to].suffix}")
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # one file, nothing beside it
    expected = classifier.predict(IMAGES).logits
    said, texts = said_by(to, file)
    for batch in (1, 32):
        found = np.concatenate([said(SHOWN[start : start + batch]) for start in range(0, 100, batch)])
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert json.loads(texts["classes"]) == [*NAMES]
    assert (texts["resolution"], texts["network"]) == ("16", "resnet_custom")
    assert texts["normalization"].startswith("(images - mean)" if to == "safetensors" else "inside")
    assert classifier.network.prep[0].weight.is_contiguous(memory_format=torch.channels_last)  # it was left as it is


class WithTheSizeOfTheBatch(nn.Module):
    """A network that does for two images something else than for any other number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] if images.shape[0] == 2 else images.flatten(1)[:, 3:6]


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_a_network_that_cannot_be_exported_is_named_and_what_was_there_stays(to, tmp_path):
    needs(to)
    file = tmp_path / f"it{FORMATS[to].suffix}"
    file.write_text("mine")
    network = nn.Sequential(WithTheSizeOfTheBatch(), nn.Linear(3, 3)).eval()
    with pytest.raises(ExportError, match="cannot export this network"):
        export(Classifier(network, CLASSES, MEAN, STD, resolution=8), to, file, force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file.name, "mine")]


def test_a_network_without_a_logit_for_each_class_is_refused(tmp_path):
    with pytest.raises(ExportError, match="3 classes"):
        export(Classifier(tiny_network(classes=2).eval(), CLASSES, MEAN, STD, resolution=8), "torch", tmp_path / "it.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [lambda logits: logits + 0.01, lambda logits: logits * np.nan, lambda logits: logits[:, :2]])
def test_a_file_that_says_something_else_is_not_kept(wrong, tmp_path, monkeypatch):
    real = exporting._as_program

    def made(*arguments: Any) -> Any:
        content, said = real(*arguments)
        return content, lambda images: wrong(said(images))

    monkeypatch.setattr(exporting, "_as_program", made)
    with pytest.raises(ExportError, match="something else than the network"):
        export(Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=8), "torch", tmp_path / "it.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "onxn", "file": "it.onnx"}, "did you mean 'onnx'"),
        ({"to": "torch", "file": "it.pt"}, r"ends in \.pt2"),
        ({"to": "torch"}, "give file="),
        ({"to": "torch", "file": "there.pt2"}, "force=True"),
        ({"to": "missing", "file": "it.x"}, "pip install no_such_package"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_computed(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORMATS, "missing", ExportFormat(".x", ("json", "no_such_package")))
    (tmp_path / "there.pt2").write_text("mine")
    with pytest.raises(RunError, match=said):
        export(Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=8), **options)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
