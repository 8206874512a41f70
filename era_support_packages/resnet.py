"""The door for notebooks of 2023: the names of `models.resnet`."""

from era_support_packages.models.resnet import *  # noqa: F403
