"""Do the maps find a cause that was planted?"""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.trust.shortcut.planted import PlantedNetwork as PlantedNetwork
    from era_support_packages.trust.shortcut.planting import plant as plant
    from era_support_packages.trust.shortcut.result import ShortcutTest as ShortcutTest
    from era_support_packages.trust.shortcut.search import find as find

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
