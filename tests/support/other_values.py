"""A configuration, and for each of its fields another value that is valid."""

from typing import Any

from era_support_packages.training.config import TrainingConfig


def make(**values: Any) -> TrainingConfig:
    return TrainingConfig(**{"preset_name": "cpu", "epochs": 3, **values})


OTHER_VALUES: dict[str, dict[str, Any]] = {
    "dataset": {"dataset": "digits"},
    "model": {"model": "ResNet34"},
    "epochs": {"epochs": 4},
    "train_images": {"epochs": None, "train_images": 100},
    "resolutions": {"resolutions": ((31, 1.0),)},
    "batch_size": {"batch_size": 511},
    "max_lr": {"max_lr": 0.1},
    "warmup": {"warmup": 0.26},
    "warmup_start": {"warmup_start": 0.2},
    "anneal": {"anneal": "cos"},
    "optimizer": {"optimizer": "muon"},
    "muon_lr": {"muon_lr": 0.2},
    "momentum": {"momentum": 0.8},
    "weight_decay": {"weight_decay": 5.1e-4},
    "decay_norms_and_biases": {"decay_norms_and_biases": True},
    "label_smoothing": {"label_smoothing": 0.1},
    "norm_bias_lr": {"norm_bias_lr": 16},
    "residual_start": {"residual_start": "dirac"},
    "max_epochs": {"max_epochs": 2},
    "whitening": {"whitening": True},
    "horizontal_flip": {"horizontal_flip": 0.4},
    "alternating_flip": {"alternating_flip": True},
    "crop_padding": {"crop_padding": 1},
    "cutout": {"cutout": 1},
    "cutout_first": {"cutout_first": True},
    "shift_scale_rotate": {"shift_scale_rotate": 0.1},
    "rgb_shift": {"rgb_shift": 0.1},
    "brightness_contrast": {"brightness_contrast": 0.1},
    "range_test_iterations": {"range_test_iterations": 101},
    "validation": {"validation": 0.1},
    "test_images": {"test_images": 10},
    "skip_broken": {"skip_broken": True},
    "test_time_flip": {"test_time_flip": True},
    "precision": {"precision": "fp32"},
    "device": {"device": "cpu"},
    "engine": {"engine": "samples"},
    "workers": {"workers": 1},
    "threads": {"threads": 1},
    "cuda_graph": {"cuda_graph": False},
    "compile": {"compile": True},
    "deterministic": {"deterministic": True},
    "seed": {"seed": 1},
    "run_name": {"run_name": "mine"},
    "output_dir": {"output_dir": "elsewhere"},
    "preset_name": {"preset_name": "best"},
}
