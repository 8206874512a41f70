"""The fields of a configuration, each with its range, its default and its help beside it."""

from dataclasses import dataclass
from typing import Literal

from era_support_packages.datasets.fitting import Fit
from era_support_packages.models.catalog import Network, is_network
from era_support_packages.system.settings import is_text, setting
from era_support_packages.training import config_checks as checks
from era_support_packages.training.plan import Resolutions

Auto = Literal["auto"]
Precision = Literal["fp32", "bf16", "fp16"]
Engine = Literal["device", "samples"]
ALL_OUTPUTS = 10**6  # more than any convolution has


@dataclass(frozen=True)
class ConfigFields:
    """What `TrainingConfig`, `PreparedConfig` and `ResolvedConfig` hold."""

    preset_name: str
    dataset: str = setting(
        "auto",
        "auto (CIFAR-10, else handwritten digits), cifar10, cifar100, digits, or a folder of images",
        group="data and network",
    )
    image_size: int | Auto = setting(
        "auto", 'px of the square images; "auto" is 32, or what suits a folder', low=32, high=512, auto="what suits the data"
    )
    fit: Auto | Fit = setting("auto", 'how they are made square: "crop", which "auto" takes, "pad" with gray, or "squash"')
    model: Network = setting("ResNet18", "the network", test=is_network)
    pretrained: bool | Auto = setting(
        "auto", 'start from the weights of torchvision or timm; "auto" does for their networks', auto="these"
    )
    weights: str | None = setting(
        None, "file of weights to start from (.pth, .safetensors)", wanted="the path of a file as text, or None", test=is_text
    )
    epochs: int | None = setting(None, "passes over the training images", low=1, high=10_000, group="length")
    train_images: int | Auto | None = setting(
        None,
        'instead of epochs: images shown in all; "auto" is more with a GPU',
        low=1,
        high=10**9,
        auto="what suits the machine and the number of images",
    )
    max_epochs: int | None = setting(None, "with train_images: no more passes than this", low=1, high=10_000)
    resolutions: Resolutions = setting(
        ((32, 1.0),),
        "(pixels, share of the images) in the order they are used; up to 1, pixels are a share of image_size",
        wanted=checks.PLAN,
        test=checks.is_plan,
    )
    batch_size: int = setting(512, "images a step", low=2, high=65_536)
    max_lr: float | Auto = setting(
        "auto",
        'peak learning rate; "auto" takes the range test\'s suggestion',
        above=0,
        high=100,
        auto="the range test's suggestion",
        group="learning rate and optimizer",
    )
    warmup: float = setting(0.25, "share of the run in which the learning rate rises to max_lr", low=0, high=1)
    warmup_start: float = setting(0.04, "share of max_lr that the warm-up begins with", low=0.0001, high=1)
    anneal: Literal["linear", "cos"] = setting("linear", "how the learning rate falls to zero after the warm-up")
    optimizer: Literal["sgd", "muon", "adamw"] = setting(
        "sgd", "sgd, adamw, or muon for the filters of all convolutions but the first and SGD for the rest"
    )
    muon_lr: float = setting(
        0.25, "Muon's rate as a multiple of max_lr: the share of its own length by which a filter bank turns", low=0, high=1000
    )
    muon_outputs: int = setting(
        ALL_OUTPUTS, "most outputs of a convolution that Muon turns, wider ones going by SGD", low=1, high=ALL_OUTPUTS
    )
    momentum: float = setting(0.9, "Nesterov momentum; of AdamW, of the gradient", low=0, high=0.9999)
    weight_decay: float = setting(5e-4, "on convolutions and the output layer, but not on what Muon turns", low=0, high=1)
    decay_norms_and_biases: bool = setting(False, "whether weight_decay is for norms and biases too")
    label_smoothing: float = setting(0.0, "share of the target that is spread over all classes", low=0, high=0.99)
    norm_bias_lr: float = setting(1.0, "learning rate of batch-norm biases as a multiple of max_lr", low=0, high=1000)
    head_lr: float = setting(1.0, "learning rate of the last layer as a multiple of max_lr", low=0.001, high=1000)
    head_first: float = setting(
        0.0, "share of the images in which only the last layer learns, before all do; 0 for none", low=0, high=0.9
    )
    freeze_norms: bool = setting(False, "batch norm keeps the statistics it came with, in training too")
    average: float = setting(
        0.0, "share of the steps, the last ones, whose mean weights the run ends with; 0 for the last weights", low=0, high=1
    )
    residual_start: Literal["random", "dirac", "zero"] = setting(
        "random", "last convolution of each residual block: random, dirac (as the identity) or zero", group="start of the network"
    )
    whitening: bool = setting(False, "start the first convolution from the principal components of 3x3 training patches")
    horizontal_flip: float | Auto = setting(
        "auto",
        'probability; "auto" is 0.5, but 0 for digits, which have no mirror image',
        low=0,
        high=1,
        group="augmentation of the training images",
    )
    alternating_flip: bool = setting(False, "mirror each image in every other pass instead of tossing a coin in each")
    crop_padding: int = setting(0, "px of reflected border around the image before a random crop of its size", low=0, high=511)
    random_resized_crop: float = setting(
        0.0, "smallest share of the area that a random crop keeps, enlarged to the whole; 0 for none", low=0, high=1
    )
    cutout: int = setting(0, "side in px of one square filled with the mean color", low=0, high=512)
    cutout_first: bool = setting(False, "cut out before the crop, which moves the square and may mirror it into its border")
    shift_scale_rotate: float = setting(
        0.0, "probability; shift and scale by up to 5 %, rotate by up to 15 degrees", low=0, high=1
    )
    rgb_shift: float = setting(0.0, "probability; each channel by up to 20 of 255", low=0, high=1)
    brightness_contrast: float = setting(0.0, "probability; each by up to 20 %", low=0, high=1)
    range_test_iterations: int = setting(100, "steps of the learning-rate range test", low=16, high=10_000, group="tests")
    validation: float = setting(0.0, "share of the training images held out by class and seed, to choose by", low=0, high=0.5)
    test_images: int | None = setting(
        None, "test or validation images looked at between epochs; the last epoch always sees the whole split", low=1, high=10**9
    )
    final_test: bool = setting(True, "look at the test split; false leaves it unread to the end, which takes a validation share")
    skip_broken: bool = setting(False, "leave damaged image files out, and say how many, instead of naming them and ending")
    test_time_flip: bool = setting(False, "at the end, also score the mean over each test image and its mirror image")
    precision: Auto | Precision = setting("auto", "of the forward pass", group="machine")
    device: str = setting(
        "auto", "where to train: auto, cpu, cuda, cuda:1, mps", wanted=checks.ASKED_DEVICES, test=checks.is_asked_device
    )
    engine: Auto | Engine = setting(
        "auto", 'augment by the batch on the "device", or "samples" one by one in workers; "auto": the device, unless streamed'
    )
    stream: bool | Auto = setting("auto", "decode a folder's images when they are used", auto="what memory asks for")
    workers: int | Auto = setting("auto", 'processes of the engine "samples"; "auto": by what they do', low=0, high=64)
    threads: int | Auto = setting("auto", 'of PyTorch on the CPU; "auto" is what PyTorch finds', low=1, high=1024)
    cuda_graph: bool = setting(True, "on a GPU, launch a training step as one recorded graph, to the same numbers")
    compile: bool = setting(False, "train the network compiled by torch.compile, which takes time before the first step")
    sync_batch_norm: bool = setting(False, "several processes on GPUs share the statistics of batch norm at every step")
    deterministic: bool = setting(
        False, "on a GPU, only algorithms that give the same bits each time (slower); a CPU's always do"
    )
    seed: int = setting(0, "of weights, order and augmentation", low=0, high=2**32 - 1, group="run")
    run_name: str | None = setting(
        None, "name of the run's folder; None makes one from the values", wanted=checks.FOLDER_NAME, test=checks.is_folder_name
    )
    output_dir: str = setting("runs", "folder for the folders of runs")
    tracker: checks.TrackerName | None = setting(None, "where the rows, values and figures of the run are shown too")
