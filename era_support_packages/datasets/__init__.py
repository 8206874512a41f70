"""Data sets as arrays: loading, splits, batches, augmentation, normalization."""

from typing import TYPE_CHECKING

from era_support_packages.system.lazy import public_names

if TYPE_CHECKING:
    from era_support_packages.datasets.augmentation_policy import AugmentationPolicy as AugmentationPolicy
    from era_support_packages.datasets.batches import (
        AugmentedImages as AugmentedImages,
        TrainingBatches as TrainingBatches,
        augmented_variants as augmented_variants,
    )
    from era_support_packages.datasets.fingerprint import Fingerprint as Fingerprint
    from era_support_packages.datasets.image_dataset import (
        DatasetError as DatasetError,
        ImageDataset as ImageDataset,
        fingerprint_of as fingerprint_of,
        summary as summary,
    )
    from era_support_packages.datasets.image_folder import decode_image as decode_image, load_image_folder as load_image_folder
    from era_support_packages.datasets.loading import default_root as default_root, load as load
    from era_support_packages.datasets.normalization import (
        normalize as normalize,
        normalize_images as normalize_images,
        random_images as random_images,
        unnormalize as unnormalize,
    )
    from era_support_packages.datasets.validation import hold_out as hold_out

__all__, __getattr__, __dir__ = public_names(__name__, __file__)
