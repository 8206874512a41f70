"""A folder of images as a data set: decoded once, in parallel, and kept decoded in a cache file.

A folder holds `train/<class>/` and `test/<class>/`, or only `<class>/`, with image files in each class folder. Its
cache file is written beside the runs and is made again when a file of the folder is added, removed or changed.
"""

import hashlib
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from era_support_packages.datasets.image_dataset import IMAGE_SIZE, DatasetError, ImageDataset, make_splits, stratified_split

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
CACHE_FORMAT = 1  # count up when the same files would be decoded to other pixels
CHUNK = 128  # images a task: large enough to hide the cost of a task, small enough for a smooth progress bar


@dataclass(frozen=True, eq=False)
class _Listing:
    """The image files of a folder, training files first, with a fingerprint that changes when any of them does."""

    files: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    train_size: int | None  # None: the folder has no splits of its own
    fingerprint: str


def load_image_folder(
    folder: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Load a folder of images: (train, test), each uint8 (N, 32, 32, 3).

    folder: `train/<class>/` and `test/<class>/`, used as they are (test/ may lack a class, train/ may not); or class
        folders alone, of whose images a stratified choice of 20 %, the same every time, becomes the test split.
        Classes are the names of the class folders, sorted; images are sorted by class, then by file name. Hidden
        files, and files that do not end in .jpg .jpeg .png .bmp .webp, are ignored.
    cache_dir: where the cache file lies; None is `default_cache_dir()`.

    Grey images become RGB, transparency is dropped, and the orientation that a camera noted is applied. Images that are
    not 32x32 are resized to it, without keeping the aspect ratio, and a printed line says so.

    Raises FileNotFoundError (no images, an empty class folder, one of train/ and test/ missing), ValueError (fewer than
    two classes, a class in test/ that train/ lacks, too few images to split), DatasetError (a file that is no whole
    image). Warns, and goes on without a cache, where the cache file cannot be written.

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
    folder = Path(folder).resolve()
    listing = _list_folder(folder)
    images = _decoded(folder, listing, default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser())
    labels = listing.labels
    if listing.train_size is None:
        train, test = stratified_split(labels)
    else:
        train, test = slice(0, listing.train_size), slice(listing.train_size, None)
    title = f"{folder.name} (folder of images)"
    return make_splits((images[train], labels[train]), (images[test], labels[test]), listing.classes, folder.name, title)


def default_cache_dir() -> Path:
    """The folder that the environment variable ERA_CACHE_DIR names, else `runs/.cache` in the current folder."""
    return Path(os.environ.get("ERA_CACHE_DIR") or "runs/.cache").expanduser()


def _list_folder(folder: Path) -> _Listing:
    parts = set(_class_folders(folder)) & {"train", "test"}
    if len(parts) == 1:
        there = parts.pop()
        missing = "test" if there == "train" else "train"
        raise FileNotFoundError(
            f"{folder} has a folder {there}/ but no {missing}/: give it both, or class folders alone, without {there}/."
        )
    top = folder / "train" if parts else folder
    classes = _class_folders(top)
    if not classes:
        raise FileNotFoundError(
            f"{top} holds no class folders: a folder of images has <class>/ or train/<class>/ and test/<class>/ in it."
        )
    if len(classes) == 1:
        raise ValueError(f"{top} holds only one class folder, {classes[0]!r}: a classifier needs at least two.")
    images = {label: _image_files(top / name) for label, name in enumerate(classes)}
    entries = [(label, entry) for label in images for entry in images[label]]
    train_size = None
    if parts:
        train_size = len(entries)
        entries += _list_test(folder / "test", classes)
    elif too_small := [classes[label] for label in images if len(images[label]) < 2]:
        raise ValueError(f"class folder {folder / too_small[0]} holds one image: it needs two, one to train and one to test.")
    digest = hashlib.sha256(f"format {CACHE_FORMAT}, {IMAGE_SIZE} px\n".encode())
    for _, entry in entries:
        status = entry.stat()
        digest.update(os.fsencode(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return _Listing(
        files=[entry.path for _, entry in entries],
        labels=np.array([label for label, _ in entries], dtype=np.int64),
        classes=tuple(classes),
        train_size=train_size,
        fingerprint=digest.hexdigest(),
    )


def _list_test(folder: Path, classes: list[str]) -> list[tuple[int, os.DirEntry[str]]]:
    names = _class_folders(folder)
    if not names:
        raise FileNotFoundError(f"{folder} holds no class folders: it needs the same ones as train/.")
    if unknown := sorted(set(names) - set(classes)):
        raise ValueError(f"{folder / unknown[0]} is a class that train/ lacks: train/ must have every class of test/.")
    return [(classes.index(name), entry) for name in names for entry in _image_files(folder / name)]


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        files = [e for e in entries if e.name.lower().endswith(EXTENSIONS) and not e.name.startswith(".") and e.is_file()]
    if not files:
        raise FileNotFoundError(f"class folder {folder} holds no images ({' '.join(EXTENSIONS)}): fill it or remove it.")
    return sorted(files, key=lambda entry: entry.name)


def _decoded(folder: Path, listing: _Listing, cache_dir: Path) -> np.ndarray:
    """All images of the listing, from the cache file if it fits, else decoded and kept there."""
    cache_file = cache_dir / f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]}.npz"
    cached = _read_cache(cache_file, listing)
    images, note = cached or _decode(folder.name, listing.files)
    if note:
        print(note)
    if cached is None:
        try:
            _write_cache(cache_file, listing.fingerprint, images, note)
        except OSError as error:
            warnings.warn(
                f"The decoded images of {folder.name} cannot be kept in {cache_dir} ({error.strerror or error}): they "
                "are decoded again every time, unless ERA_CACHE_DIR names a folder that can be written.",
                stacklevel=4,
            )
    return images


def _read_cache(file: Path, listing: _Listing) -> tuple[np.ndarray, str] | None:
    try:
        with np.load(file, allow_pickle=False) as cache:
            if str(cache["fingerprint"]) != listing.fingerprint:
                return None
            return cache["images"], str(cache["note"])
    except Exception:  # absent, cut short or changed (a zip file carries checksums): in any case it can be made again
        return None


def _write_cache(file: Path, fingerprint: str, images: np.ndarray, note: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, fingerprint=np.array(fingerprint), note=np.array(note), images=images)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _decode(name: str, files: list[str]) -> tuple[np.ndarray, str]:
    """uint8 (N, 32, 32, 3) and a sentence to print, empty if no image had to be resized."""
    images = np.empty((len(files), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

    def decode_chunk(start: int) -> set[tuple[int, ...]]:
        sizes = set()
        for index in range(start, min(start + CHUNK, len(files))):
            image = decode_image(files[index])
            sizes.add(image.shape[:2])
            images[index] = resize_image(image)
        return sizes

    sizes: set[tuple[int, ...]] = set()
    starts = range(0, len(files), CHUNK)
    # Threads, because OpenCV decodes without holding the interpreter's lock.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(files), desc=f"decoding {name}", unit=" images", leave=False, delay=0.5) as progress,
    ):
        for start, found in zip(starts, pool.map(decode_chunk, starts), strict=True):
            sizes |= found
            progress.update(min(CHUNK, len(files) - start))
    if sizes == {(IMAGE_SIZE, IMAGE_SIZE)}:
        return images, ""
    smallest, *others = [f"{width}x{height}" for height, width in sorted(sizes)]
    given = f"{len(sizes)} sizes ({smallest} ... {others[-1]})" if others else smallest
    return images, f"{name}: images of {given} are resized to {IMAGE_SIZE}x{IMAGE_SIZE}."


def decode_image(file: str | os.PathLike[str]) -> np.ndarray:
    """Decode one image file: uint8 (H, W, 3), RGB. Raises DatasetError if it is not a whole image.

    >>> import numpy as np
    >>> from PIL import Image
    >>> from era_support_packages.datasets import decode_image
    >>> Image.fromarray(np.zeros((4, 6), np.uint8)).save("black.png")
    >>> decode_image("black.png").shape
    (4, 6, 3)
    """
    with open(file, "rb") as stream:
        data = stream.read()
    # OpenCV 4 fills up a JPEG cut short with grey, and only warns: the last scan (FF DA) must reach the end (FF D9).
    whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") if data.startswith(b"\xff\xd8") else bool(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if whole else None
    except cv2.error:
        image = None
    if image is None:
        raise DatasetError(f"{os.fspath(file)} cannot be decoded as an image: replace it or delete it, and run again.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resize_image(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) brought to 32 x 32 px, as training has it."""
    if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return image
    # Area averaging shrinks without aliasing, but would enlarge into blocks.
    interpolation = cv2.INTER_AREA if min(image.shape[:2]) >= IMAGE_SIZE else cv2.INTER_LINEAR
    return cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=interpolation)
