"""Predictions of a network, and what follows from them: mistakes, calibration, intervals, tables."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.evaluation.calibration import calibrate as calibrate, reliability as reliability
    from era_support_packages.evaluation.comparison import PairedComparison as PairedComparison
    from era_support_packages.evaluation.intervals import (
        Interval as Interval,
        mean_interval as mean_interval,
        paired_share_interval as paired_share_interval,
        share_interval as share_interval,
    )
    from era_support_packages.evaluation.mistakes import (
        class_scores as class_scores,
        most_confused as most_confused,
        suspicious_labels as suspicious_labels,
    )
    from era_support_packages.evaluation.outputs import LogitReader as LogitReader
    from era_support_packages.evaluation.predictions import Predictions as Predictions, predict as predict
    from era_support_packages.evaluation.temperature import temperature_scaling as temperature_scaling

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
