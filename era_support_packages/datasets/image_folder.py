"""A folder of images as a data set: each file read once, in parallel, and kept decoded in a cache file, or streamed.

A folder holds `train/<class>/` and `test/<class>/`, or only `<class>/`, with image files in each class folder, at any depth. Its
cache file is written beside the runs.
"""

import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from era_support_packages.datasets.decoding import BITS, depth_of, smallest_bits, to_8_bits
from era_support_packages.datasets.file_copies import copy_warnings
from era_support_packages.datasets.fingerprint import Fingerprint
from era_support_packages.datasets.fitting import IMAGE_SIZE, Fit, Fitting
from era_support_packages.datasets.folder_cache import FolderScan, cache_file, scan_folder
from era_support_packages.datasets.folder_listing import Candidate, Listing, list_folder, only_one_class
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, make_splits, stratified_split
from era_support_packages.datasets.scanning import scan
from era_support_packages.datasets.sizing import Stream, check_memory, holding
from era_support_packages.datasets.streaming import ImageFiles, Pixels, StreamedImages, taken
from era_support_packages.system.paths import expanded

MOST_NAMES = 10  # of files in a sentence
_Value = TypeVar("_Value")


def load_image_folder(
    folder: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    skip_broken: bool = False,
    image_size: int = IMAGE_SIZE,
    fit: Fit = "squash",
    stream: Stream = "auto",
) -> tuple[ImageDataset, ImageDataset]:
    """Load a folder of images: (train, test), each uint8 (N, image_size, image_size, 3).

    folder: `train/<class>/` and `test/<class>/`, used as they are (test/ may lack a class, train/ may not); or class
        folders alone, of whose images a stratified choice of 20 %, the same every time, becomes the test split.
        `training`, and `testing`, `val`, `valid`, `validation` where there is no `test`, are names of splits too, in any case.
        Classes are the names of the class folders, sorted; images are sorted by class, then by name. Files in folders below a
        class folder belong to its class. A file is an image where OpenCV or Pillow can read it, whatever its name.
    cache_dir: where the cache file lies; None is `default_cache_dir()`.
    skip_broken: leave out images that are damaged, and say how many, instead of raising an error.
    image_size, fit: px of the square that each image is brought to, and how, as in `fitting.Fitting`.
    stream: decode each image when it is used (`streaming.StreamedImages`) instead of holding all in memory; "auto" does where
        they would take more than a third of the free memory. A line says so, with the numbers. All are read once beforehand.

    Gray images become RGB, transparency is composed on white, the orientation that a camera noted is applied, and of an
    animation or several pages the first picture is taken. Files with 16 bits are scaled by the smallest of 8, 10, 12, 14 and 16
    bits that holds the largest value among the training files. Printed lines say how images of another size were resized, and
    what is not used, with its number and the reason; and they warn of files that are, byte for byte, in both splits or in two
    classes.

    Raises FileNotFoundError (no images, one of train/ and test/ missing), ValueError (fewer than two classes, a class in test/
    that train/ lacks, too few images to split, another fit), DatasetError (damaged images, all of them named; more than fit
    into a third of the free memory, with `stream=False`). Warns, and goes on without a cache, where the cache file cannot be
    written.

    >>> import numpy as np
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from era_support_packages.datasets import load_image_folder
    >>> for name, gray in (("dark", 10), ("light", 240)):
    ...     Path("photos", name).mkdir(parents=True)
    ...     for number in range(5):
    ...         Image.fromarray(np.full((32, 32, 3), gray + number, np.uint8)).save(f"photos/{name}/{number}.png")
    >>> train, test = load_image_folder("photos", cache_dir="cache")
    >>> len(train), len(test), test.classes
    (8, 2, ('dark', 'light'))
    """
    folder, fitting = expanded(folder).resolve(), Fitting(image_size, fit)
    listing = list_folder(folder)
    held = holding(len(listing.candidates), image_size, stream)
    if not held.streamed:
        check_memory(folder.name, len(listing.candidates), image_size, may_stream=True)
    else:
        listing.notes.append(str(held))
    found = _scanned(folder, listing, default_cache_dir() if cache_dir is None else expanded(cache_dir), fitting, held.streamed)
    reasons = zip(listing.candidates, found.problems, found.damaged, strict=True)
    if broken := [(file.path, problem) for file, problem, is_broken in reasons if is_broken]:
        if not skip_broken:
            raise DatasetError(_broken_sentence(broken, len(listing.candidates)))
        for _, problem in broken:
            what, remedy = _parts(problem)
            listing.passed_over[f"that cannot be used ({what}: {remedy})" if remedy else "damaged"] += 1
    used = [file for file, fine in zip(listing.candidates, found.fine, strict=True) if fine]
    classes = _classes(folder, listing, used)
    labels = np.array([classes.index(file.label) for file in used], dtype=np.int64)
    train: np.ndarray | slice
    test: np.ndarray | slice
    if "" in listing.folders:
        train, test = stratified_split(labels)
    else:
        train_size = sum(file.split == "train" for file in used)
        train, test = slice(0, train_size), slice(train_size, None)
    bits, notes = _bits(found, train)
    images: Pixels = _streamed(found, used, fitting, bits) if held.streamed else _pixels(found, bits)
    names, hashes = [file.relative for file in used], [row.tobytes() for row in found.sha256[found.fine]]
    for note in (*_notes(listing, used, found, notes, fitting), *copy_warnings(names, labels, hashes, test)):
        print(textwrap.fill(f"{folder.name}: {note}", 120, break_long_words=False, break_on_hyphens=False))
    fingerprints = [
        Fingerprint.of_files(classes, _taken(names, part), labels[part], _taken(hashes, part)) for part in (train, test)
    ]
    title = f"{folder.name} (folder of images)"
    pairs = (taken(images, train), labels[train]), (taken(images, test), labels[test])
    return make_splits(*pairs, classes, folder.name, title, fingerprints, bits, fit)


def default_cache_dir() -> Path:
    """The folder that the environment variable ERA_CACHE_DIR names, else `runs/.cache` in the current folder."""
    return expanded(os.environ.get("ERA_CACHE_DIR") or "runs/.cache")


def decode_image(file: str | os.PathLike[str], bits: int | None = None) -> np.ndarray:
    """Decode one image file: uint8 (H, W, 3), RGB; `bits` as for `decode_images`.

    Raises `DatasetError` if it is not a whole image, `FileNotFoundError` if it is not there.

    >>> import numpy as np
    >>> from PIL import Image
    >>> from era_support_packages.datasets import decode_image
    >>> Image.fromarray(np.zeros((4, 6), np.uint8)).save("black.png")
    >>> decode_image("black.png").shape
    (4, 6, 3)
    """
    return decode_images([file], bits)[0]


def decode_images(
    files: Sequence[str | os.PathLike[str]], bits: int | None = None, fitting: Fitting | None = None
) -> list[np.ndarray]:
    """Decode image files as those of a folder are: uint8 (H, W, 3) each, of one size where `fitting` says how.

    bits: of the files that the network was trained on (`ImageDataset.bits`), by which files of 16 bits are scaled; None is for
    each file the smallest number that holds its values, whatever else is decoded. A line says what was done.
    Raises `DatasetError` where one is not a whole image, `FileNotFoundError` where it is not there.
    """
    names = [os.fspath(expanded(file)) for file in files]
    for name in names:
        if not os.path.exists(name):
            raise FileNotFoundError(f"{name} is not there: give the path of an image file.")
    found = scan(names, fitting)
    pictures = []
    for name, file in zip(names, found, strict=True):
        if file.pixels is None:
            what, remedy = _parts(file.problem)
            remedy = remedy or f"give {'a whole one' if file.damaged else 'another file'}"
            raise DatasetError(f"{name} cannot be decoded as an image ({what}): {remedy}.")
        pictures.append(file.pixels)
    depths = [depth_of(file.largest, bits) for file in found]
    for depth in sorted(set(depths) - {0}):
        print(_bits_sentence(max(file.largest for file, own in zip(found, depths, strict=True) if own == depth), depth))
    return [to_8_bits(pixels, depth) if depth else pixels for pixels, depth in zip(pictures, depths, strict=True)]


def _scanned(folder: Path, listing: Listing, cache_dir: Path, fitting: Fitting, sums: bool) -> FolderScan:
    files, keys = [file.path for file in listing.candidates], [file.key for file in listing.candidates]
    found, error = scan_folder(files, keys, cache_file(folder, cache_dir, fitting, sums), folder.name, fitting, sums)
    if error is not None:
        warnings.warn(
            f"The {'sums of the' if sums else 'decoded'} images of {folder.name} cannot be kept in {cache_dir} "
            f"({error.strerror or error}): they are {'read' if sums else 'decoded'} again every time, unless ERA_CACHE_DIR names "
            "a folder that can be written.",
            stacklevel=4,
        )
    for problem, is_broken in zip(found.problems, found.damaged, strict=True):
        if problem and not is_broken:
            listing.passed_over[problem] += 1
    return found


def _parts(problem: str) -> tuple[str, str]:
    """What a file is, and what makes it readable, where that is more than another copy."""
    what, _, remedy = problem.partition("; ")
    return what, remedy


def _broken_sentence(broken: Sequence[tuple[str, str]], files: int) -> str:
    """Which files are meant, why, and what to do; broken: path and problem of each."""
    parts = [(path, *_parts(problem)) for path, problem in broken]
    ways = ["replace it"] * any(not remedy for *_, remedy in parts) + sorted({remedy for *_, remedy in parts if remedy})
    way_out = f"{', '.join(ways)} or delete it, and run again, or set skip_broken=True to leave it out."
    if len(parts) == 1:
        return f"{parts[0][0]} cannot be decoded as an image ({parts[0][1]}): {way_out}"
    named: dict[str, list[str]] = {}
    for path, what, _ in parts[:MOST_NAMES]:
        named.setdefault(what, []).append(path)
    names = "; ".join(f"{what}: {', '.join(paths)}" for what, paths in named.items())
    more = f", and {len(broken) - MOST_NAMES:,} more" if len(broken) > MOST_NAMES else ""
    return f"{len(broken):,} of {files:,} files cannot be decoded as images ({names}{more}): {way_out.replace(' it', ' them')}"


def _classes(folder: Path, listing: Listing, used: Iterable[Candidate]) -> list[str]:
    """The classes that have images, sorted; folders without images are passed over. Raises as `load_image_folder` does."""
    counts = Counter((file.split, file.label) for file in used)
    splits = list(listing.folders)
    first = splits[0]
    classes = [label for label in listing.folders[first] if counts[first, label]]
    top = folder if first == "" else listing.folders[first][next(iter(listing.folders[first]))].parent
    for split in splits:
        if empty := [label for label in listing.folders[split] if not counts[split, label]]:
            names = ", ".join(empty[:MOST_NAMES]) + ", ..." * (len(empty) > MOST_NAMES)
            listing.passed_over[f"folders without images{f' in {split}/' * bool(split)} ({names})"] = len(empty)
    if not classes:
        raise FileNotFoundError(
            f"{top} holds no images in its class folders{_why(listing.passed_over)}: give a folder that does."
        )
    for label in listing.folders[splits[-1]]:
        if counts[splits[-1], label] and label not in classes:
            where = listing.folders[splits[-1]][label]
            raise ValueError(f"{where} is a class that train/ lacks: train/ must have every class of test/.")
    if len(classes) == 1:
        below = sorted({file.name.split("/")[0] for file in used if "/" in file.name})
        raise ValueError(only_one_class(top, classes[0], below))
    if first == "" and (too_small := [label for label in classes if counts["", label] < 2]):
        raise ValueError(f"class folder {folder / too_small[0]} holds one image: it needs two, one to train and one to test.")
    if first != "" and not sum(counts[splits[-1], label] for label in classes):
        raise FileNotFoundError(f"The test folder of {folder} holds no images: it needs some of the classes of train/.")
    return classes


def _why(passed_over: Counter[str]) -> str:
    reasons = [f"{count:,} {reason}" for reason, count in passed_over.items() if not reason.startswith("folders")]
    return f" ({', '.join(reasons)})" if reasons else ""


def _bits(found: FolderScan, train: np.ndarray | slice) -> tuple[int | None, list[str]]:
    """The bits that files of 16 are read as, by those for training, None where there are none; and what to say of it."""
    largest = found.largest[found.fine]
    if not largest.any():
        return None, []
    seen = int(largest[train].max()) or int(largest.max())
    bits = smallest_bits(seen)
    white = int((largest >= 2**bits).sum())
    notes = [f"{white:,} test images hold larger values, which become white."] if white else []
    return bits, [_bits_sentence(seen, bits), *notes]


def _pixels(found: FolderScan, bits: int | None) -> np.ndarray:
    """uint8 (N, size, size, 3) of the files that give a picture."""
    if bits is None:
        return found.shallow
    deep = found.largest[found.fine] > 0
    images = np.empty((len(deep), *found.shallow.shape[1:]), dtype=np.uint8)
    images[~deep], images[deep] = found.shallow, to_8_bits(found.deep, bits)
    return images


def _streamed(found: FolderScan, used: Sequence[Candidate], fitting: Fitting, bits: int | None) -> StreamedImages:
    """The same, decoded when they are asked for."""
    deep = found.largest[found.fine] > 0
    sums = np.empty((len(deep), 3, 2), dtype=np.int64)
    sums[~deep] = found.shallow
    if bits is not None:
        sums[deep] = found.deep[:, BITS.index(bits)]
    files = ImageFiles.of([file.path for file in used], found.sha256[found.fine], sums, fitting, bits)
    return StreamedImages(files, np.arange(len(used)))


def _bits_sentence(largest: int, bits: int) -> str:
    above = "; larger ones become white" if largest >= 2**bits else ""
    return f"files of 16 bits hold values up to {largest}; read as {bits} bits: 0 to {2**bits - 1} become 0 to 255{above}."


def _notes(listing: Listing, used: Sequence[Candidate], found: FolderScan, notes: Sequence[str], fitting: Fitting) -> list[str]:
    """What is to be said of the folder, a sentence each."""
    said = [*listing.notes, *notes]
    sizes = {(height, width) for height, width in np.unique(found.sizes[found.fine], axis=0).tolist()}
    if sizes != {(fitting.size, fitting.size)}:
        smallest, *others = [f"{width}x{height}" for height, width in sorted(sizes)]
        given = f"{len(sizes)} sizes ({smallest} ... {others[-1]})" if others else smallest
        said.append(f"images of {given} are {fitting.words()}.")
    if several := int((found.pictures[found.fine] > 1).sum()):
        said.append(f"{several:,} of {len(used):,} files hold several pictures (animations, pages); the first of each is taken.")
    if deeper := sum("/" in file.name for file in used):
        said.append(f"{deeper:,} of {len(used):,} images lie in folders below the class folders, whose classes they have.")
    if listing.passed_over:
        parts = [
            reason if "(" in reason and "/" in reason else f"{count:,} {reason}" for reason, count in listing.passed_over.items()
        ]
        said.append(f"not used: {', '.join(parts)}.")
    return said


def _taken(values: Sequence[_Value], part: np.ndarray | slice) -> list[_Value]:
    return list(values[part]) if isinstance(part, slice) else [values[index] for index in part]
