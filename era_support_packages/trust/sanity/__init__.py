"""Do the maps change when the weights are drawn anew?"""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.trust.sanity.check import check_network as check_network, sanity_check as sanity_check
    from era_support_packages.trust.sanity.verdict import LIMITS as LIMITS, SanityCheck as SanityCheck, Verdict as Verdict

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
