"""A run from its configuration to its history: presets, loop, step, optimizers, range test, checkpoints, cost."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.training.advice import next_step as next_step
    from era_support_packages.training.checkpoint import Checkpoint as Checkpoint, CheckpointError as CheckpointError
    from era_support_packages.training.config import (
        PreparedConfig as PreparedConfig,
        ResolvedConfig as ResolvedConfig,
        TrainingConfig as TrainingConfig,
    )
    from era_support_packages.training.failures import (
        DeviceFailedError as DeviceFailedError,
        OutOfMemoryError as OutOfMemoryError,
        TrainingDivergedError as TrainingDivergedError,
    )
    from era_support_packages.training.finetuning import finetune as finetune
    from era_support_packages.training.history import (
        EpochRecord as EpochRecord,
        History as History,
        Trained as Trained,
        log_header as log_header,
        log_row as log_row,
    )
    from era_support_packages.training.loop import fit as fit
    from era_support_packages.training.lr_finder import (
        RangeTest as RangeTest,
        choose_max_lr as choose_max_lr,
        range_test as range_test,
    )
    from era_support_packages.training.presets import PRESETS as PRESETS
    from era_support_packages.training.resolution import prepare_config as prepare_config, resolve as resolve
    from era_support_packages.training.setup import (
        augmentation_policy as augmentation_policy,
        build_model as build_model,
        build_optimizer as build_optimizer,
        normalized_for as normalized_for,
    )

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
