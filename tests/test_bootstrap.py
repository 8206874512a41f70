"""Making a kernel ready: what counts as missing, the pip command, torch stays, what a relative path means."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from era_support_packages import bootstrap

REPOSITORY = Path(__file__).resolve().parents[1]
OPENCV = ["opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"]


@pytest.fixture
def installed(monkeypatch):
    """Let exactly these distributions be installed; underscores stand for hyphens."""

    def replace(**versions: str) -> None:
        found = {name.replace("_", "-"): number for name, number in versions.items()}
        monkeypatch.setattr(bootstrap, "installed_version", found.get)

    return replace


@pytest.fixture
def pip(monkeypatch):
    """Replaces pip: `.calls`, each with its command and the text of its constraints file, `.returncode` and `.stderr`."""
    pip = SimpleNamespace(calls=[], returncode=0, stderr="")

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        file = Path(command[command.index("--constraint") + 1])
        pip.calls.append(SimpleNamespace(command=command, file=file, constraints=file.read_text().split()))
        return subprocess.CompletedProcess(command, pip.returncode, "", pip.stderr)

    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    return pip


@pytest.fixture
def write(tmp_path):
    """Writes a requirements file."""

    def write_text(text: str) -> Path:
        (tmp_path / "requirements.txt").write_text(text)
        return tmp_path / "requirements.txt"

    return write_text


# ---- what is required, what is missing ---------------------------------------------------------------------------------


def test_requirements_are_names_and_whole_lines():
    lines = {
        "torch": "torch>=2.6",
        "albumentations": "albumentations>=2.0.8,<2.1",
        "grad-cam": "grad-cam == 1.5.7",
        "tqdm": "tqdm",
        "numpy": "numpy!=2.0",
        "scikit-learn": "scikit-learn~=1.3",
        "papermill": "papermill[all]>=2",
        "tomli": 'tomli<3; python_version < "3.11"',
    }
    text = "\n    ".join(["# a comment", *lines.values(), ""]).replace("<2.1", "<2.1   # a reason")
    assert bootstrap.requirements(text) == lines
    names = set(bootstrap.requirements((REPOSITORY / "requirements.txt").read_text()))
    assert {"torch", "torchvision", "albumentations", "opencv-python-headless", "torch-lr-finder", "grad-cam"} <= names


def test_missing_are_packages_that_are_not_there_whatever_their_version(installed):
    assert bootstrap.installed_version("pytest") == pytest.__version__
    assert bootstrap.installed_version("no-such-distribution-at-all") is None
    installed(torch="1.0", tqdm="4.0")
    lines = {"torch": "torch>=2.6", "tqdm": "tqdm>=4.66", "grad-cam": "grad-cam>=1.5.7", "torchsummary": "torchsummary"}
    assert bootstrap.missing(lines) == ["grad-cam>=1.5.7", "torchsummary"]


def test_any_wheel_of_opencv_will_do(installed):
    lines = {"opencv-python-headless": "opencv-python-headless>=4.9", "tqdm": "tqdm"}
    installed(tqdm="4.66")
    assert bootstrap.missing(lines) == ["opencv-python-headless>=4.9"]
    for wheel in OPENCV:
        installed(**{wheel: "4.10"})
        assert bootstrap.missing(lines) == ["tqdm"]


def test_an_old_lock_is_replaced_and_an_old_numpy_is_not(installed):
    lines = bootstrap.requirements("numpy>=9.0\nfilelock>=3.30.3\n")
    for version in ("3.13.4", "3.30"):
        installed(numpy=version, filelock=version)
        assert bootstrap.missing(lines) == ["filelock>=3.30.3"]
    for version in ("3.30.3", "4.0.0", "3.31.0.dev1"):
        installed(numpy=version, filelock=version)
        assert bootstrap.missing(lines) == []


# ---- installing --------------------------------------------------------------------------------------------------------


def test_nothing_missing_means_nothing_is_run(installed, pip, write, capsys):
    installed(torch="2.6", tqdm="4.66")
    file = write("torch>=2.6\ntqdm\n")
    assert bootstrap.install_missing(file) == []
    assert bootstrap.install_missing(file.with_name("absent.txt")) == []  # a package installed with pip has no such file
    assert pip.calls == []
    assert capsys.readouterr() == ("", "")


def test_the_missing_are_installed_with_the_kernels_own_python_and_torch_stays(installed, pip, write, monkeypatch, capsys):
    installed(torch="2.6.0+cu124", torchvision="0.21.0+cu124", numpy="2.0.2", tqdm="4.66")
    monkeypatch.setattr(sys, "executable", "/some/kernel/bin/python")
    forgotten: list[bool] = []
    monkeypatch.setattr(importlib, "invalidate_caches", lambda: forgotten.append(True))
    wanted = ["torch-lr-finder>=0.2.2", "torchsummary", "grad-cam>=1.5.7"]
    file = write("torch>=2.6\ntorchvision\ntorch-lr-finder>=0.2.2\ntorchsummary\ntqdm\ngrad-cam>=1.5.7  # new\n")
    assert bootstrap.install_missing(file) == wanted
    (call,) = pip.calls
    constraints = ["--constraint", str(call.file)]
    assert call.command == ["/some/kernel/bin/python", "-m", "pip", "install", "--quiet", *constraints, *wanted]
    assert call.constraints == ["torch==2.6.0+cu124", "torchvision==0.21.0+cu124", "numpy==2.0.2"]
    assert not call.file.exists()
    assert forgotten == [True]
    assert capsys.readouterr().out == "Installing torch-lr-finder>=0.2.2, torchsummary, grad-cam>=1.5.7\n"


def test_the_default_is_the_repositorys_list(installed, pip, write, tmp_path, monkeypatch):
    installed(torch="2.6", torchvision="0.21")
    monkeypatch.setattr(bootstrap, "repository_folder", lambda: tmp_path)
    assert bootstrap.install_missing() == []  # there is no requirements.txt
    write("torch>=2.6\ntqdm>=4.66\n")
    assert bootstrap.install_missing() == ["tqdm>=4.66"]
    assert pip.calls[0].constraints == ["torch==2.6", "torchvision==0.21"]  # numpy is not there and may come


@pytest.mark.parametrize(("present", "what"), [({}, "torch>=2.6 and torchvision>=0.21"), ({"torch": "2.6"}, "torchvision>=0.21")])
def test_torch_itself_is_never_installed(present, what, installed, pip, write):
    installed(**present)
    file = write("torch>=2.6\ntorchvision>=0.21\ntorch-lr-finder>=0.2.2\ntorchsummary\n")
    with pytest.raises(RuntimeError, match=f"^{what} must be there before the notebook starts.*get-started.*`make run`"):
        bootstrap.install_missing(file)
    assert pip.calls == []


def test_what_pip_says_last_is_in_the_message(installed, pip, write):
    installed(torch="2.6")
    said = "ERROR: No matching distribution found for tqdm"
    pip.returncode, pip.stderr = 1, "x" * 2000 + said + "\n"
    with pytest.raises(RuntimeError) as error:
        bootstrap.install_missing(write("torch\ntqdm\ngrad-cam>=1.5\n"))
    assert str(error.value) == "pip could not install tqdm, grad-cam>=1.5: " + "x" * (1000 - len(said)) + said
    assert not pip.calls[0].file.exists()


# ---- the download meanwhile --------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """The downloads that are begun, in an empty folder without data: (file, addresses)."""
    for name in ("ERA_DATA_ROOT", "ERA_CIFAR10_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "cifar10"):
        (tmp_path / "runs" / f"of-{name}").mkdir(parents=True)
        (tmp_path / "runs" / f"of-{name}" / "config.json").write_text(f'{{"dataset": "{name}"}}')
    calls: list[tuple] = []
    monkeypatch.setattr(bootstrap, "begin", lambda file, addresses, md5: calls.append((str(file), addresses)) or "it")
    return calls


CIFAR10 = "data/cifar-10-python.tar.gz"


@pytest.mark.parametrize(
    ("parameters", "file"),
    [
        ({}, CIFAR10),
        ({"dataset": "cifar10"}, CIFAR10),
        ({"dataset": "cifar100"}, "data/cifar-100-python.tar.gz"),
        ({"dataset": "cifar10", "data_root": "elsewhere"}, "elsewhere/cifar-10-python.tar.gz"),
        ({"finished_run": "runs/of-cifar10", "dataset": "digits"}, CIFAR10),
        ({"run_name": "of-cifar10"}, CIFAR10),
        ({"run_name": "new"}, CIFAR10),
        ({"run_name": "of-digits", "resume": False}, CIFAR10),
        ({"run_name": "of-digits", "output_dir": "others"}, CIFAR10),
        ({"run_name": "of-digits"}, None),
        ({"dataset": "digits"}, None),
        ({"dataset": "path/to/images"}, None),
        ({"finished_run": "runs/of-digits"}, None),
        ({"finished_run": "runs/absent"}, None),
        ({"dataset": 10}, None),  # bad values: the run names them
        ({"dataset": ["cifar10"]}, None),
        ({"data_root": 10}, None),
        ({"finished_run": 10}, None),
    ],
)
def test_a_download_begins_only_where_it_is_wanted(parameters, file, begun, capsys):
    assert bootstrap.start_download(**parameters) == (None if file is None else "it")
    assert [name for name, _ in begun] == ([] if file is None else [file])
    printed = capsys.readouterr().out
    assert printed.startswith("Downloading CIFAR-10") if file else printed == ""


@pytest.mark.usefixtures("begun")
def test_what_is_there_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ERA_DATA_ROOT", str(tmp_path / "root"))
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).touch()
    assert bootstrap.start_download() == "it"  # batches.meta is missing
    (folder / "batches.meta").touch()
    assert bootstrap.start_download() is None
    assert bootstrap.start_download(dataset="cifar100") == "it"


def test_the_second_address_comes_from_the_environment(begun, monkeypatch):
    monkeypatch.setenv("ERA_CIFAR10_URL", "https://mirror.example/cifar.tar.gz")
    bootstrap.start_download()
    first = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert begun == [(CIFAR10, (first, "https://mirror.example/cifar.tar.gz"))]


# ---- what relative paths mean ------------------------------------------------------------------------------------------


def test_relative_paths_mean_the_root_of_a_clone_else_the_notebooks_folder(tmp_path, monkeypatch):
    assert bootstrap.repository_folder() == REPOSITORY
    root, here, elsewhere = (tmp_path / name for name in ("root", "here", "elsewhere"))
    for folder in (root, here, elsewhere):
        folder.mkdir()
    monkeypatch.setattr(bootstrap, "repository_folder", lambda: root)
    monkeypatch.delenv("ERA_NOTEBOOK_FOLDER", raising=False)
    monkeypatch.chdir(here)
    assert bootstrap.project_folder() == here  # the package lies in site-packages
    (root / "notebooks").mkdir()
    assert bootstrap.project_folder() == root  # a clone, whatever the working folder is
    monkeypatch.setenv("ERA_NOTEBOOK_FOLDER", str(elsewhere))
    assert bootstrap.project_folder() == elsewhere  # the notebook cloned the repository itself


def test_it_needs_nothing_but_the_standard_library():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); import era_support_packages.bootstrap; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    command = [sys.executable, "-I", "-B", "-c", code, str(REPOSITORY)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['era_support_packages']"
