"""The ten methods by name: what each is, whose it is, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.base_cam import BaseCAM

from era_support_packages.gradcam.batch import Batch, BatchMaps
from era_support_packages.gradcam.full_gradient import full_gradient_maps
from era_support_packages.gradcam.maps import ablation_maps, eigen_maps, gradient_maps, score_maps
from era_support_packages.system.naming import nearest_names


@dataclass(frozen=True)
class Method:
    """One way to make class activation maps.

    >>> from era_support_packages.gradcam import METHODS
    >>> METHODS["hirescam"].title, METHODS["hirescam"].idea
    ('HiResCAM', 'gradient times activation, pixel by pixel')
    >>> [name for name, method in METHODS.items() if method.pass_per_channel]
    ['scorecam', 'ablationcam']
    """

    title: str
    """as the field writes it"""
    idea: str
    """what the map is, in a few words"""
    source: str
    """the paper"""
    library: type[BaseCAM]
    """the class of pytorch-grad-cam that makes the same maps"""
    maps: Callable[[Batch], BatchMaps]
    """makes them here"""
    needs_gradients: bool = True
    """whether there is a backward pass for each class"""
    class_specific: bool = True
    """whether the map depends on the class explained"""
    pass_per_channel: bool = False
    """whether it takes a forward pass for each channel of each layer: hundreds an image"""
    all_layers: bool = False
    """whether one map comes from all layers, so that none can be chosen"""


def _by_gradient(title: str, idea: str, source: str, library: type[BaseCAM]) -> Method:
    return Method(title, idea, source, library, partial(gradient_maps, library=library))


METHODS: dict[str, Method] = {
    "gradcam": _by_gradient(
        "Grad-CAM", "channels weighted by their mean gradient", "Selvaraju et al. 2017, arXiv:1610.02391", GradCAM
    ),
    "gradcam++": _by_gradient(
        "Grad-CAM++",
        "channels weighted by their positive gradients, the rarer the more",
        "Chattopadhay et al. 2018, arXiv:1710.11063",
        GradCAMPlusPlus,
    ),
    "hirescam": _by_gradient(
        "HiResCAM", "gradient times activation, pixel by pixel", "Draelos and Carin 2020, arXiv:2011.08891", HiResCAM
    ),
    "xgradcam": _by_gradient(
        "XGrad-CAM",
        "channels weighted by their gradient, averaged by the activation",
        "Fu et al. 2020, arXiv:2008.02312",
        XGradCAM,
    ),
    "layercam": _by_gradient(
        "LayerCAM", "positive gradient times activation", "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943", LayerCAM
    ),
    "eigengradcam": _by_gradient(
        "EigenGradCAM",
        "first principal component of gradient times activation",
        "pytorch-grad-cam, after Muhammad and Yeasin 2020, arXiv:2008.00299",
        EigenGradCAM,
    ),
    "eigencam": Method(
        "EigenCAM",
        "first principal component of the activations, whatever the class",
        "Muhammad and Yeasin 2020, arXiv:2008.00299",
        EigenCAM,
        eigen_maps,
        needs_gradients=False,
        class_specific=False,
    ),
    "scorecam": Method(
        "Score-CAM",
        "channels weighted by the score of the image seen through them",
        "Wang et al. 2020, arXiv:1910.01279",
        ScoreCAM,
        score_maps,
        needs_gradients=False,
        pass_per_channel=True,
    ),
    "ablationcam": Method(
        "Ablation-CAM",
        "channels weighted by the fall of the score without them",
        "Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360",
        AblationCAM,
        ablation_maps,
        needs_gradients=False,
        pass_per_channel=True,
    ),
    "fullgrad": Method(
        "FullGrad",
        "input and biases times their gradients, summed over all layers",
        "Srinivas and Fleuret 2019, arXiv:1905.00780",
        FullGrad,
        full_gradient_maps,
        all_layers=True,
    ),
}

GRADIENT_METHODS = tuple(name for name, method in METHODS.items() if method.needs_gradients and not method.all_layers)
"""the six that make the maps of all layers from one forward pass and one backward pass per class"""


def check_method(method: str) -> None:
    """Raise `ValueError` with the nearest names where `method` is not a key of `METHODS`.

    >>> from era_support_packages.gradcam import check_method
    >>> check_method("gradcam")
    >>> check_method("grad-cam")
    Traceback (most recent call last):
        ...
    ValueError: Unknown method 'grad-cam': did you mean 'gradcam' or 'xgradcam' or 'gradcam++'?
    """
    if method not in tuple(METHODS):
        raise ValueError(f"Unknown method {method!r}: {nearest_names(method, METHODS)}")
