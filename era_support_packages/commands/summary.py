"""summary: the layers of a network."""

from typing import Any

from era_support_packages.models.catalog import MODELS, is_network
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.naming import nearest_names


def add_options(parser: CommandParser) -> None:
    """Which network, for which images."""
    parser.add_argument(
        "model", nargs="?", default="ResNet18", metavar="MODEL", help=f"{', '.join(MODELS)}, or torchvision/NAME, timm/NAME"
    )
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="number of classes (default 10)")
    parser.add_argument("--pixels", type=int, default=32, metavar="N", help="side of the images in px (default 32)")


def run(options: dict[str, Any]) -> int:
    """Print torchsummary's table."""
    model, classes, pixels = options["model"], options["classes"], options["pixels"]
    if not is_network(model):
        raise CommandLineError(f"Unknown network {model!r}: {nearest_names(model, MODELS)}")
    if classes < 1 or not 8 <= pixels <= 512:
        raise CommandLineError(f"{classes} classes at {pixels} px: give at least 1 class, and 8 to 512 px.")
    from era_support_packages.models.catalog import build_network
    from era_support_packages.models.summary import model_summary

    try:
        network = build_network(model, classes)
    except ValueError as error:
        raise CommandLineError(str(error)) from None
    print(model_summary(network, (3, pixels, pixels)))
    return 0
