"""A configuration, and for each of its fields another value that is valid."""

from typing import Any

from era_support_packages.training.config import TrainingConfig


def make(**values: Any) -> TrainingConfig:
    return TrainingConfig(**{"preset_name": "cpu", "epochs": 3, **values})


_EACH = {"dataset": "digits", "model": "ResNet34", "epochs": 4, "resolutions": ((31, 1.0),), "batch_size": 511, "max_lr": 0.1}
_EACH |= {"warmup": 0.26, "warmup_start": 0.2, "anneal": "cos", "optimizer": "muon", "muon_lr": 0.2, "momentum": 0.8}
_EACH |= {"muon_outputs": 256}
_EACH |= {"weight_decay": 5.1e-4, "decay_norms_and_biases": True, "label_smoothing": 0.1, "norm_bias_lr": 16}
_EACH |= {"residual_start": "dirac", "max_epochs": 2, "whitening": True, "horizontal_flip": 0.4, "alternating_flip": True}
_EACH |= {"crop_padding": 1, "cutout": 1, "cutout_first": True, "shift_scale_rotate": 0.1, "rgb_shift": 0.1}
_EACH |= {"brightness_contrast": 0.1, "range_test_iterations": 101, "validation": 0.1, "test_images": 10, "skip_broken": True}
_EACH |= {"test_time_flip": True, "precision": "fp32", "device": "cpu", "engine": "samples", "workers": 1, "threads": 1}
_EACH |= {"stream": True}
_EACH |= {"cuda_graph": False, "compile": True, "sync_batch_norm": True, "deterministic": True, "seed": 1, "run_name": "mine"}
_EACH |= {"random_resized_crop": 0.3, "pretrained": False, "weights": "w.pth", "image_size": 64, "fit": "pad"}
_EACH |= {"head_lr": 10.0, "head_first": 0.25, "freeze_norms": True, "average": 0.1}
_EACH |= {"output_dir": "elsewhere", "tracker": "wandb", "preset_name": "best"}
OTHER_VALUES: dict[str, dict[str, Any]] = {name: {name: value} for name, value in _EACH.items()}
OTHER_VALUES["final_test"] = {"final_test": False, "validation": 0.1}
OTHER_VALUES["train_images"] = {"epochs": None, "train_images": 100}
