"""The networks, their initial weights, and their summary."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.models.custom_resnet import resnet_custom as resnet_custom
    from era_support_packages.models.heads import last_layer as last_layer, replace_head as replace_head
    from era_support_packages.models.modes import evaluation_mode as evaluation_mode
    from era_support_packages.models.resnet import (
        ResNet18 as ResNet18,
        ResNet34 as ResNet34,
        ResNet50 as ResNet50,
        ResNet101 as ResNet101,
        ResNet152 as ResNet152,
    )
    from era_support_packages.models.summary import model_summary as model_summary

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
