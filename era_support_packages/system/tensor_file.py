"""Files of tensors and plain values: written as a whole or not at all, and read without executing anything in them."""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch

from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.plain_error import PlainError

_DAMAGED = "is damaged (the checksum of {} does not fit)"
_FOREIGN = "is not a checkpoint of this package"


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
        except Exception as error:  # broken bytes make PyTorch raise almost anything, OSError and IndexError among it
            raise TensorFileError(f"{path} {_problem(file, isinstance(error, pickle.UnpicklingError))}") from None
        try:  # PyTorch does not compare the checksums
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
        except Exception:  # the files of torch before 1.6 are no archives; what is in one may break in any way
            raise TensorFileError(f"{path} {_problem(file, False) if zipfile.is_zipfile(file) else _FOREIGN}") from None
    if damaged is not None:
        raise TensorFileError(f"{path} {_DAMAGED.format(damaged)}")
    if not isinstance(content, dict):
        raise TensorFileError(f"{path} {_FOREIGN}")
    return content


def _problem(file: BinaryIO, unpicklable: bool) -> str:
    """What is wrong with a file that PyTorch does not read; a damaged pickle looks to it like one that holds other objects."""
    file.seek(0)
    start = file.read(2)
    if not start:
        return "is empty"
    try:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                return _DAMAGED.format(damaged)
            is_archive = True
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        is_archive = False
    if unpicklable and (is_archive or start[:1] == b"\x80"):  # a pickle of its own begins so
        return "holds something other than tensors and plain values, and was not executed"
    return "is cut short or is no checkpoint"


def read_state(path: Path) -> dict[str, Any]:
    """What a file of weights of any origin holds, on the CPU: as `torch.save` wrote it, long ago too, or `.safetensors`.

    Nothing in it is executed (`weights_only=True`). Raises `TensorFileError` for what is none, and `OSError` where none is there.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except OSError:
            raise
        except Exception as error:
            raise TensorFileError(f"{path} is no file of safetensors, or damaged ({str(error).splitlines()[0]})") from None
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise TensorFileError(f"{path} {_problem(file, isinstance(error, pickle.UnpicklingError))}") from None
    if not isinstance(content, dict):
        raise TensorFileError(f"{path} holds no table of weights")
    return content
