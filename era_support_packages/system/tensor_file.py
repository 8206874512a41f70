"""Files of tensors and plain values: written as a whole or not at all, and read without executing anything in them."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.plain_error import PlainError


class TensorFileError(PlainError, ValueError):
    """A file that cannot be read; the message says what is wrong with it. The file is left as it is."""


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values: until the new file is on the disk, the one of before stays."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def read_tensors(path: Path) -> dict[str, Any]:
    """What `write_tensors` wrote, on the CPU (`weights_only=True`).

    Raises `TensorFileError` for a file that is empty, cut short, damaged, or of another kind, and `OSError` where none is there.
    """
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            with zipfile.ZipFile(file) as archive:  # PyTorch does not compare the checksums
                damaged = archive.testzip()
        except pickle.UnpicklingError:
            raise TensorFileError(f"{path} holds something other than tensors and plain values, and was not executed") from None
        except Exception:  # broken bytes make PyTorch raise almost anything, OSError and IndexError among it
            problem = "is empty" if path.stat().st_size == 0 else "is cut short or is no checkpoint"
            raise TensorFileError(f"{path} {problem}") from None
    if damaged is not None:
        raise TensorFileError(f"{path} is damaged (the checksum of {damaged} does not fit)")
    if not isinstance(content, dict):
        raise TensorFileError(f"{path} is not a checkpoint of this package")
    return content
