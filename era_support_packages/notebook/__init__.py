"""The notebook: its parameters, running it without a browser, and the words on what made its outputs."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.notebook import provenance as provenance
    from era_support_packages.notebook.page import Page as Page
    from era_support_packages.notebook.parameters import Parameters as Parameters

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
