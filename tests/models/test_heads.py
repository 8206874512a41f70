"""The last layer of networks, whatever they call it, and a new one; on the meta device, where nothing is computed."""

import pytest
import torch
from torch import nn

from era_support_packages.models import last_layer, replace_head
from era_support_packages.models.libraries import on_meta, shapes_only

torchvision = pytest.importorskip("torchvision")

HEADS = {
    "resnet18": "fc",
    "regnet_y_400mf": "fc",
    "shufflenet_v2_x0_5": "fc",
    "googlenet": "fc",
    "inception_v3": "fc",
    "densenet121": "classifier",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier.1",
    "convnext_tiny": "classifier.2",
    "alexnet": "classifier.6",
    "vgg11": "classifier.6",
    "maxvit_t": "classifier.5",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "vit_b_32": "heads.head",
}


@pytest.mark.parametrize("name", HEADS)
def test_each_family_gets_a_last_layer_for_other_classes(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = shapes_only(lambda: torchvision.models.get_model(name, weights=None, **options)).train()
    with on_meta():
        layer = last_layer(network)[1]
        assert replace_head(network, 7) == HEADS[name]
        new = last_layer(network)[1]
        assert (type(new), (new.bias is None)) == (type(layer), (layer.bias is None))
        logits = network(torch.empty(2, 3, 299 if name == "inception_v3" else 224, 299 if name == "inception_v3" else 224))
    assert logits.shape == (2, 7)  # also in training, without auxiliary heads


def test_a_head_of_the_right_size_stays_and_one_in_no_known_place_is_found():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3))
    last = network[3]
    assert replace_head(network, 3) == "3"
    assert network[3] is last
    assert replace_head(network, 2) == "3"
    assert (network[3].out_features, network[2].out_features) == (2, 5)


class Named(nn.Module):
    """Linear layers by name, in the order of definition, run in the order of `run`."""

    def __init__(self, layers: dict[str, nn.Module], run: str) -> None:
        super().__init__()
        self.run = run.split()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for name in self.run:
            values = getattr(self, name)(values).relu()
        return values


@pytest.mark.parametrize(
    "layers",
    [
        {"fc": nn.Linear(6, 4), "classifier": nn.Linear(4, 5)},
        {"fc": nn.Linear(6, 7), "classifier": nn.Linear(7, 5)},  # as many as there are classes
        {"fc": nn.Linear(6, 6), "classifier": nn.Linear(6, 6)},
        {"head": nn.Linear(6, 4), "linear": nn.Linear(4, 4), "classifier": nn.Linear(4, 5)},
        {"classifier": nn.Linear(6, 4), "fc": nn.Linear(4, 5)},
    ],
)
def test_of_several_known_names_the_one_defined_last_is_the_last_layer(layers):
    network = Named(layers, " ".join(layers))
    last = list(layers)[-1]
    assert last_layer(network)[0] == last
    assert replace_head(network, 7) == last
    assert network(torch.ones(2, 6)).shape == (2, 7)


def test_layers_that_are_defined_in_another_order_than_they_run_in_are_refused_and_left():
    network = Named({"classifier": nn.Linear(4, 5), "fc": nn.Linear(6, 4)}, "fc classifier")
    with pytest.raises(ValueError, match=r"Named has 'classifier' and 'fc'.*Define them in the order in which they run"):
        replace_head(network, 7)
    assert (network.classifier.out_features, network.fc.out_features) == (5, 4)


def test_the_new_layer_is_like_the_one_of_before():
    network = nn.Module()
    network.fc = nn.Linear(4, 5, bias=False).half().eval()
    replace_head(network, 2)
    assert (network.fc.weight.dtype, network.fc.bias, network.fc.training) == (torch.float16, None, False)


@pytest.mark.parametrize("classes", [0, True, 2.0, "3"])
def test_no_number_of_classes_is_refused(classes):
    with pytest.raises(ValueError, match="classes is"):
        replace_head(nn.Sequential(nn.Linear(2, 2)), classes)


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(ValueError, match="replace its last layer yourself"):
        last_layer(nn.Sequential(nn.Conv2d(3, 4, 1)))
