"""The names of `models.resnet`, for notebooks of the course project of 2023."""

from era_support_packages.models.resnet import *  # noqa: F403
