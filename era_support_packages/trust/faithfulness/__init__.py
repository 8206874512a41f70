"""Do the pixels that a map marks matter to the network more than those of a map that knows nothing?"""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.trust.faithfulness.metrics import RANKING_METRICS as RANKING_METRICS
    from era_support_packages.trust.faithfulness.result import Faithfulness as Faithfulness
    from era_support_packages.trust.faithfulness.scores import evaluate as evaluate, judge as judge

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
