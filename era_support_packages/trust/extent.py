"""How large the checks of the maps may be, in a word."""

from typing import Literal

Extent = Literal["auto", "full"]
"""as the work of the training allows, or as after a long training"""
