"""Runs of a few steps, made once for all tests of the commands."""

import shutil
from pathlib import Path

import pytest
from tiny_run import TINY

from era_support_packages.commands.command_line import main

RUNS = {"first": ["--max-lr", "0.01"], "second": ["--max-lr", "0.02"], "second-again": ["--max-lr", "0.02", "--seed", "1"]}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: another rate in the second, another seed too in the third."""
    folder = tmp_path_factory.mktemp("trained")
    for name, values in RUNS.items():
        assert main(["train", *TINY, *values, "--run-name", name, "--output-dir", str(folder / "runs"), "--quiet"]) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
