"""Do the maps find a cause that was planted?"""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.trust.shortcut.planting import PlantedNetwork as PlantedNetwork, plant as plant
    from era_support_packages.trust.shortcut.report import (
        reading as reading,
        score_table as score_table,
        verdict_table as verdict_table,
    )
    from era_support_packages.trust.shortcut.search import ShortcutTest as ShortcutTest, find as find

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
