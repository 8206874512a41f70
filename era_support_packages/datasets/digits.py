"""Handwritten digits: the embedded default, which needs no network.

The test part of Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), as scikit-learn brings it along.
"""

import cv2
import numpy as np

from era_support_packages.datasets.fingerprint import Fingerprint
from era_support_packages.datasets.fitting import IMAGE_SIZE
from era_support_packages.datasets.image_dataset import ImageDataset, make_splits, stratified_split


def load_digits() -> tuple[ImageDataset, ImageDataset]:
    """The 1,797 handwritten digits of scikit-learn: 1,437 to train, 360 to test. Needs no network.

    Their 8x8 values 0 ... 16 become 0 ... 255, enlarged to 32x32 (bicubic, clipped) and repeated in three channels.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    small = (digits.images * (255 / 16)).astype(np.float32)
    large = [cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC) for image in small]
    gray = np.clip(np.rint(large), 0, 255).astype(np.uint8)
    images, labels = np.repeat(gray[..., None], 3, axis=-1), digits.target.astype(np.int64)
    train, test = stratified_split(labels)
    title = "handwritten digits (embedded default, not CIFAR-10)"
    classes = [str(digit) for digit in range(10)]
    # of the digits as they came, for OpenCV's versions may enlarge them to other pixels
    raw = digits.images.astype(np.uint8)
    fingerprints = [Fingerprint.of_arrays(classes, raw[part], labels[part]) for part in (train, test)]
    pairs = (images[train], labels[train]), (images[test], labels[test])
    return make_splits(*pairs, classes, "digits", title, fingerprints)
