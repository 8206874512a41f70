"""What a stored row is a row of: a digest of every value that decided its result, and the kind of device it ran on."""

import hashlib
import json
from typing import Any

from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.muon import ITERATIONS

# The values that a key always holds. One that `TrainingConfig` gets later is left out of it while it holds its default, which
# does what was done before: so no stored row becomes one of an older recipe.
ALWAYS = (
    *("model", "epochs", "train_images", "max_epochs", "resolutions", "batch_size"),
    *("max_lr", "warmup", "warmup_start", "anneal", "optimizer", "momentum", "weight_decay", "decay_norms_and_biases"),
    *("label_smoothing", "norm_bias_lr", "residual_start", "whitening"),
    *("horizontal_flip", "alternating_flip", "crop_padding", "cutout", "cutout_first"),
    *("shift_scale_rotate", "rgb_shift", "brightness_contrast"),
    *("precision", "engine", "compile", "deterministic"),
)
# The row names its data and its seed beside the key, the preset's name says nothing that its values do not, and the rest says
# where a run is and how much is looked at on the way.
NEVER = (
    *("dataset", "seed", "preset_name", "run_name", "output_dir"),
    *("device", "workers", "threads", "cuda_graph"),
    *("test_images", "test_time_flip"),
)

OLDER = "older recipe"  # how a row is marked whose key is no longer that of its recipe

Values = dict[str, Any]


def recipe_values(config: TrainingConfig) -> Values:
    """Every value of a configuration that decides its result, the preset expanded and "auto" as it is."""
    defaults = TrainingConfig("cpu", epochs=1).to_dict()
    values = {
        name: value
        for name, value in config.to_dict().items()
        if name in ALWAYS or (name not in NEVER and value != defaults[name])
    }
    if config.optimizer == "muon":
        values |= {"muon_lr": config.muon_lr, "muon_iterations": ITERATIONS}
    else:
        for name in ("muon_lr", "muon_outputs"):
            values.pop(name, None)
    if config.max_lr == "auto":
        values["range_test_iterations"] = config.range_test_iterations
    else:
        values.pop("range_test_iterations", None)
    return values


def digest(values: Values) -> str:
    """The key of a recipe: twelve hexadecimal digits that change with each of its values."""
    numbers_alike = json.loads(json.dumps(values), parse_int=float)  # 1 and 1.0 are the same value
    return hashlib.sha256(json.dumps(numbers_alike, sort_keys=True).encode()).hexdigest()[:12]


def key_of(config: TrainingConfig) -> str:
    """The key of a configuration."""
    return digest(recipe_values(config))


def kind_of(device: str) -> str:
    """The kind of a device from the words in which `machine.describe` names it: "cpu", "mps" or "cuda"."""
    return "cpu" if device.startswith("CPU") else "mps" if device.startswith("Apple") else "cuda"
