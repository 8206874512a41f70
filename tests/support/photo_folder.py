"""A folder of a few small photos, of many sizes and kinds."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fox")


def photo(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth colors at random, uint8 (height, width, 3)."""
    coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_photos(folder: Path, train: int = 8, test: int = 4, odd: bool = False) -> Path:
    """`train/` and `test/` with so many JPEG files of 40 to 90 px in each of three classes; the same ones every time.

    odd: also a gray PNG file, one with transparency, and two with 16 bits, of which that for testing holds the larger values.
    """
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("test", test)):
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(40, 90, 2).tolist()
                Image.fromarray(photo(generator, height, width)).save(folder / split / label / f"{number}.jpg", quality=90)
    if odd:
        Image.fromarray(photo(generator, 50, 60)[..., 0]).save(folder / "train" / "cat" / "gray.png")
        layers = np.concatenate([photo(generator, 50, 60), generator.integers(0, 256, (50, 60, 1), dtype=np.uint8)], axis=2)
        Image.fromarray(layers, "RGBA").save(folder / "train" / "dog" / "transparent.png")
        for split, most in (("train", 4000), ("test", 9000)):
            deep = generator.integers(0, most, (50, 60)).astype(np.uint16)
            Image.fromarray(deep).save(folder / split / "fox" / "deep.png")
    return folder
