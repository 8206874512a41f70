"""Files that hold no checkpoint: damage is called damage, and other objects are not executed."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from era_support_packages.classifier import Classifier, ClassifierError
from era_support_packages.system.tensor_file import TensorFileError, read_tensors


def saved(content: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


WHOLE = saved({"weights": torch.arange(1000.0), "epoch": 3})
PICKLE = WHOLE.index(b"\x80\x02")  # of the values, in the archive


class Other:
    """What only code can bring back."""


CASES = {
    "a byte of the pickle changed": (WHOLE[: PICKLE + 4] + b"\xff\xff" + WHOLE[PICKLE + 6 :], "is damaged (the checksum of"),
    "the pickle overwritten": (WHOLE[:PICKLE] + bytes(20) + WHOLE[PICKLE + 20 :], "is damaged (the checksum of"),
    "its beginning overwritten": (bytes(64) + WHOLE[64:], "is damaged (the checksum of"),
    "a tensor changed": (WHOLE[:2000] + b"zz" + WHOLE[2002:], "is damaged (the checksum of"),
    "cut short": (WHOLE[:-200], "is cut short or is no checkpoint"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is cut short or is no checkpoint"),
    "json": (b'{"epoch": 3}', "is cut short or is no checkpoint"),
    "empty": (b"", "is empty"),
    "other objects": (saved({"weights": Other()}), "holds something other than tensors and plain values, and was not executed"),
    "a pickle": (pickle.dumps(Other()), "holds something other than tensors and plain values, and was not executed"),
    "of torch before 1.6": (saved({"epoch": 3}, _use_new_zipfile_serialization=False), "is not a checkpoint of this package"),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_is_wrong_is_said(kind: str, tmp_path: Path) -> None:
    content, problem = CASES[kind]
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with pytest.raises(TensorFileError) as caught:
        read_tensors(file)
    assert str(caught.value).startswith(f"{file} {problem}")
    with pytest.raises(ClassifierError, match="; copy it again from where it is whole, or give the folder of a run, or a file"):
        Classifier.load(file)
    assert file.read_bytes() == content


def test_weights_alone_are_no_newer_version(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(ClassifierError, match="is no file of this package, such as weights alone; build their network, or give"):
        Classifier.load(tmp_path / "x.pt")
