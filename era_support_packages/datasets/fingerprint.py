"""Whether data is the same as before: told by the bytes it came as, never by decoded pixels or times, which differ anyway."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from era_support_packages.datasets.streaming import AT_ONCE, Pixels, StreamedImages, in_parts, taken

_MOST_CHANGES = 4  # named in a sentence


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of one split. Two splits hold the same data if their fingerprints are equal.

    classes: their names, in order. digest: of everything: classes, names, labels, and the SHA-256 of each image, in order.
    by_class: for each class how many images it has, and the digest of these.

    >>> import numpy as np
    >>> from era_support_packages.datasets import Fingerprint
    >>> before = Fingerprint.of_arrays(["cat", "dog"], np.zeros((3, 32, 32, 3), np.uint8), np.array([0, 0, 1]))
    >>> after = Fingerprint.of_arrays(["cat", "dog"], np.zeros((3, 32, 32, 3), np.uint8), np.array([0, 1, 1]))
    >>> after.changes(before, "test")
    ["1 test images of 'cat' (before 2)", "2 test images of 'dog' (before 1)"]
    """

    classes: tuple[str, ...]
    digest: str
    by_class: Mapping[str, tuple[int, str]]

    @classmethod
    def of_files(cls, classes: Sequence[str], names: Sequence[str], labels: np.ndarray, hashes: Sequence[bytes]) -> "Fingerprint":
        """From each file's name relative to the data set ("/" between folders), its label (N,), and the SHA-256 of its bytes."""
        lines = [
            name.encode("utf-8", "surrogateescape") + b"\0" + classes[label].encode("utf-8", "surrogateescape") + b"\0" + sha256
            for name, label, sha256 in zip(names, labels.tolist(), hashes, strict=True)
        ]
        parts = {label: [lines[index] for index in np.flatnonzero(labels == label)] for label in range(len(classes))}
        return cls._of(classes, lines, parts)

    @classmethod
    def of_arrays(cls, classes: Sequence[str], images: Pixels, labels: np.ndarray) -> "Fingerprint":
        """From images (N, ...) of one dtype, or streamed, and their labels int64 (N,)."""
        about = f"{images.dtype.str} {images.shape[1:]}".encode()
        whole = [about, np.ascontiguousarray(labels, dtype="<i8").tobytes(), images]
        parts = {label: [about, taken(images, labels == label)] for label in range(len(classes))}
        counts = np.bincount(labels, minlength=len(classes)).tolist()
        return cls._of(classes, whole, parts, counts)

    @classmethod
    def _of(
        cls, classes: Sequence[str], whole: Iterable[Any], parts: Mapping[int, Sequence[Any]], counts: Sequence[int] | None = None
    ) -> "Fingerprint":
        names = [name.encode("utf-8", "surrogateescape") for name in classes]
        by_class = {classes[label]: (counts[label] if counts else len(part), _digest(part)[:16]) for label, part in parts.items()}
        return cls(tuple(classes), _digest([*names, b"", *whole]), by_class)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fingerprint":
        """What `to_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        by_class = {name: (int(count), str(digest)) for name, (count, digest) in values["by_class"].items()}
        return cls(tuple(values["classes"]), str(values["digest"]), by_class)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps."""
        by_class = {name: list(part) for name, part in self.by_class.items()}
        return {"classes": list(self.classes), "digest": self.digest, "by_class": by_class}

    def changes(self, before: "Fingerprint", split: str) -> list[str]:
        """What differs from an earlier fingerprint of the split ("training", "test"), in words; empty where nothing does."""
        if self.digest == before.digest:
            return []
        if self.classes != before.classes:
            now, then = (", ".join(part.classes[:6]) + ", ..." * (len(part.classes) > 6) for part in (self, before))
            if sorted(self.classes) == sorted(before.classes):
                return [f"the classes are in another order ({now}; before {then})"]
            return [f"the classes are {now} (before {then})"]
        changed = []
        for name, (count, digest) in self.by_class.items():
            old_count, old_digest = before.by_class.get(name, (0, ""))
            if count != old_count:
                changed.append(f"{count:,} {split} images of {name!r} (before {old_count:,})")
            elif digest != old_digest:
                changed.append(f"other files or names among the {count:,} {split} images of {name!r}")
        if len(changed) > _MOST_CHANGES:
            changed[_MOST_CHANGES - 1 :] = [f"and {len(changed) - _MOST_CHANGES + 1} more classes of the {split} images"]
        return changed or [f"the {split} images are in another order"]


@dataclass(frozen=True)
class DataFingerprint:
    """Of both splits of a data set, with the short name that it goes by in the names of runs."""

    name: str
    train: Fingerprint
    test: Fingerprint

    @property
    def digest(self) -> str:
        """Of both; the name does not count."""
        return _digest([self.train.digest.encode(), self.test.digest.encode()])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataFingerprint":
        """What `to_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(str(values["name"]), Fingerprint.from_dict(values["train"]), Fingerprint.from_dict(values["test"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and a checkpoint keep."""
        return {"name": self.name, "train": self.train.to_dict(), "test": self.test.to_dict()}

    def changes(self, before: "DataFingerprint") -> str:
        """What differs from an earlier one, in words; "" where nothing does."""
        lines = self.train.changes(before.train, "training") + self.test.changes(before.test, "test")
        return ", ".join(dict.fromkeys(lines))


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        streamed = isinstance(part, StreamedImages)
        blocks: Iterable[Any] = in_parts(part, AT_ONCE) if streamed else [part]
        digest.update((part.nbytes if streamed else memoryview(part).nbytes).to_bytes(8, "little"))
        for block in blocks:
            view = memoryview(block)
            digest.update(view if view.contiguous else view.tobytes())
    return digest.hexdigest()
