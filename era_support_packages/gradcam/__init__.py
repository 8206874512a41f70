"""Class activation maps: ten methods, any layers, one pass for all of them."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.gradcam.arguments import DEFAULT_LAYERS as DEFAULT_LAYERS
    from era_support_packages.gradcam.candidates import Layer as Layer, Layers as Layers, layers as layers
    from era_support_packages.gradcam.explanation import (
        ALL_LAYERS as ALL_LAYERS,
        Explanation as Explanation,
        default_layers as default_layers,
        explain as explain,
        image_passes as image_passes,
        upsample as upsample,
    )
    from era_support_packages.gradcam.exploration import Exploration as Exploration
    from era_support_packages.gradcam.methods import (
        GRADIENT_METHODS as GRADIENT_METHODS,
        METHODS as METHODS,
        Method as Method,
        check_method as check_method,
    )

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
