"""A run's folder: preparing it, recording it, going on with it, showing it again."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.runs.card import model_card as model_card
    from era_support_packages.runs.comparison import Comparison as Comparison, compare as compare
    from era_support_packages.runs.entry import RunEntry as RunEntry
    from era_support_packages.runs.exporting import ExportError as ExportError, export as export
    from era_support_packages.runs.folder import Run as Run, RunError as RunError
    from era_support_packages.runs.listing import ListingError as ListingError, RunList as RunList, list_runs as list_runs
    from era_support_packages.runs.photos import (
        ExplainedPhoto as ExplainedPhoto,
        explain_photo as explain_photo,
        kept_temperature as kept_temperature,
    )
    from era_support_packages.runs.preparation import PreparedRun as PreparedRun, prepare as prepare
    from era_support_packages.runs.recording import (
        RunStopped as RunStopped,
        choose_learning_rate as choose_learning_rate,
        train_in_folder as train_in_folder,
        train_or_stop as train_or_stop,
        train_prepared as train_prepared,
    )
    from era_support_packages.runs.tracking import Tracker as Tracker, track_figures as track_figures
    from era_support_packages.runs.untrained import (
        NotTrainedError as NotTrainedError,
        Untrained as Untrained,
        require_complete as require_complete,
    )

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
