"""A disk that is full or may not be written is a sentence with what to do, and what was there stays."""

import errno
import os
from contextlib import contextmanager

import pytest
from tiny import CLASSES, MEAN, STD, tiny_network

from era_support_packages.classifier import Classifier
from era_support_packages.commands.output import problem_of
from era_support_packages.runs.export_formats import FORMATS
from era_support_packages.runs.exporting import ExportError, export, keep
from era_support_packages.system import atomic_file


@contextmanager
def no_file_may_grow():
    """The system refuses every byte that this process writes into a file, whoever in it writes."""
    resource = pytest.importorskip("resource", reason="the system knows no limits of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("to", FORMATS)
def test_an_exporter_that_cannot_write_ends_in_a_sentence(to, tmp_path):
    for name in FORMATS[to].packages:
        pytest.importorskip(name, reason=f"needs {name}: pip install 'era-support-packages[export]'")
    file = tmp_path / f"it{FORMATS[to].suffix}"
    file.write_text("mine")
    classifier = Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=8)
    with no_file_may_grow(), pytest.raises(ExportError) as refused:
        export(classifier, to, file, force=True)
    assert str(refused.value) == f"{file} cannot be written ({os.strerror(errno.EFBIG)}): give a file elsewhere."
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file.name, "mine")]


def test_a_full_disk_says_how_much_room_is_needed(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(ExportError) as refused:
        keep(tmp_path / "README.md", bytes(3 * 2**19))
    file = tmp_path / "README.md"
    said = f"There is no room for {file}, which takes 1.5 MiB ({os.strerror(errno.ENOSPC)}): make some, or give a file elsewhere."
    assert problem_of(refused.value) == (said, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named_with_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "plain").write_text("mine")
    file = tmp_path / "plain" / "it.pt2"
    with pytest.raises(ExportError) as refused:
        keep(file, b"")
    assert str(refused.value) == f"{file} cannot be written ({os.strerror(errno.EEXIST)}): give a file elsewhere."
