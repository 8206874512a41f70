"""The door for notebooks of 2023: the names of `models.custom_resnet`."""

from era_support_packages.models.custom_resnet import *  # noqa: F403
