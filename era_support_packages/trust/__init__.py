"""Can heat maps be believed? Three tests that answer in numbers: `faithfulness`, `sanity`, `shortcut`."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.trust import faithfulness as faithfulness, sanity as sanity, shortcut as shortcut
    from era_support_packages.trust.budget import CheckBudget as CheckBudget
    from era_support_packages.trust.plan import CheckPlan as CheckPlan

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
