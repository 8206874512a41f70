"""The environments of the tests: what is imported is declared, and how environments are made, found and refused."""

import ast
import subprocess
import sys
from pathlib import Path

import check
import environment
import pytest
from environment import EnvironmentProblem, definition, lowest_versions, read_list
from notebook_files import NOTEBOOK, code_cells, read

from era_support_packages.bootstrap import requirements

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {  # what requirements-dev.txt declares: `make run` installs it too, and `to_frame` says what it lacks
    "notebook/execution.py": {"papermill", "nbclient"},
    "notebook/executed.py": {"nbformat", "nbconvert"},
    "evaluation/tables.py": {"pandas"},
    "runs/search.py": {"optuna"},
}
OPTIONAL = {  # used where they are installed, and named where they are not
    "datasets/decoding.py": {"pillow_heif"},
    "models/fused_norms.py": {"triton"},
    "models/libraries.py": {"timm"},
    "models/norm_kernels.py": {"triton"},
    "models/pretrained.py": {"timm"},
    "plots/photo_upload.py": {"google"},
    "runs/exporting.py": {"onnx", "onnxruntime", "safetensors"},
    "system/memory.py": {"psutil"},
    "system/tensor_file.py": {"safetensors"},
}
MODULES = {  # distributions that are called otherwise than what they bring
    "cv2": "opencv-python-headless",
    "IPython": "ipython",
    "PIL": "pillow",
    "pytorch_grad_cam": "grad-cam",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "torch_lr_finder": "torch-lr-finder",
}
FULL = "{}.{}.{}".format(*sys.version_info)


def imported(source: str) -> set[str]:
    """The top modules that a source imports, anywhere in it, but those of Python and our own, and what only checkers read."""
    names: set[str] = set()
    nodes = list(ast.walk(ast.parse(source)))
    checked = [node for node in nodes if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    unread = {id(inner) for node in checked for part in node.body for inner in ast.walk(part)}
    for node in (node for node in nodes if id(node) not in unread):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"era_support_packages"}


def declared(file: str) -> set[str]:
    return {name.lower() for name in requirements((ROOT / file).read_text())}


def sources() -> dict[str, str]:
    """Every file of the package, and the notebook's code cells, by name."""
    package = ROOT / "era_support_packages"
    found = {file.relative_to(package).as_posix(): file.read_text() for file in package.rglob("*.py")}
    return {**found, NOTEBOOK.name: "\n".join(cell.source for cell in code_cells(read()))}


def test_an_import_is_found_wherever_it_stands():
    source = "import os.path, numpy as np\nfrom . import bar\ndef f():\n    import PIL.Image\n    from sklearn.x import y\n"
    assert imported(source) == {"numpy", "PIL", "sklearn"}


def test_what_the_package_and_the_notebook_import_is_declared():
    undeclared = {
        f"{module} in {name}"
        for name, source in sources().items()
        for module in imported(source) - EXTRAS.get(name, set()) - OPTIONAL.get(name, set())
        if MODULES.get(module, module) not in declared("requirements.txt")
    }
    assert undeclared == set()
    assert set().union(*EXTRAS.values()) <= declared("requirements-dev.txt")


def test_what_is_declared_is_imported():
    brought = {MODULES.get(module, module) for source in sources().values() for module in imported(source)}
    assert declared("requirements.txt") - brought == set()


def test_a_list_is_read_without_comments_and_with_the_lists_that_it_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("# Python 3.13\n\ntorch==2.6  # why\n-r ../b.txt  # tools\nlast==1#not-a-comment\n")
    (tmp_path / "b.txt").write_text("pytest>=8\n")
    assert read_list(tmp_path / "sub" / "a.txt") == ["torch==2.6", "pytest>=8", "last==1#not-a-comment"]


def test_the_lowest_versions_are_those_declared():
    pinned = ["torch==2.6", "albumentations==2.0.8", "grad-cam==1.5.7"]
    assert lowest_versions(["torch>=2.6", "albumentations >= 2.0.8, <2.1", "grad-cam>=1.5.7"]) == pinned
    lines, version = definition("lowest")  # of the project
    assert version == "3.10"
    assert {"torch==2.6", "albumentations==2.0.8", "papermill>=2.6"} <= set(lines)


@pytest.mark.parametrize("line", ["torch", "torch<3", "torch==2.6", "torch~=2.6", 'tomli>=1; python_version < "3.11"'])
def test_a_line_without_a_lowest_version_is_named(line):
    with pytest.raises(ValueError, match="must declare its lowest version") as error:
        lowest_versions([line])
    assert line in str(error.value)


def test_colabs_versions_lie_within_what_is_declared():
    packaging = pytest.importorskip("packaging.requirements")
    colab = dict(line.split("==") for line in definition("colab")[0] if "==" in line)
    for line in read_list(ROOT / "requirements.txt"):
        requirement = packaging.Requirement(line)
        assert colab.get(requirement.name) is None or requirement.specifier.contains(colab[requirement.name]), line
    # The notebook installs the first two, and the third where the one that comes with torch is too old.
    assert declared("requirements.txt") - set(colab) == {"grad-cam", "torch-lr-finder", "filelock"}


def test_the_newest_list_counts_and_its_first_line_names_its_python(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "HERE", tmp_path)
    for name, text in {"c-2026-08": "# Python 3.12\na==1\n", "c-2027-01": "# Python 3.14\na==2\n", "c-d": "b==1\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert definition("c") == (["a==2"], "3.14")
    assert definition("c-d") == (["b==1"], FULL.rpartition(".")[0])
    with pytest.raises(EnvironmentProblem, match=r"no environment 'x'; choose one of c, c-d, lowest\.") as error:
        definition("x")
    assert error.value.code == 2


def interpreter(file: Path, version: str) -> str:
    """A program that says it is Python `version`, or fails as a shim does where `version` is empty."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """A machine without any other Python: its folder of programs, which is on the PATH with a shim that does not run."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.delenv("X_PYTHON", raising=False)
    interpreter(tmp_path / "bin" / "python9.9", "")
    return tmp_path


@pytest.mark.parametrize("place", ["bin/python", "pyenv/versions/9.9.2/bin/python", "uv/cpython-9.9.2-linux/bin/python3"])
def test_a_python_is_found_on_the_path_and_where_pyenv_and_uv_keep_theirs(place, nowhere):
    interpreter(nowhere / "pyenv/versions/9.8.0/bin/python", "9.8.0")
    python = interpreter(nowhere / place, "9.9.2")
    assert environment.find_python("x", "9.9", None) == (python, "9.9.2")


def test_a_python_that_is_not_there_is_named_with_how_to_get_it(nowhere):
    with pytest.raises(EnvironmentProblem) as error:
        environment.find_python("x", "9.9", None)
    assert str(error.value) == (
        "The environment 'x' needs Python 9.9, and there is none on the PATH or where pyenv and uv keep theirs: "
        "get it by `pyenv install 9.9` or `uv python install 9.9`, or name one by X_PYTHON=/path/to/python."
    )
    assert error.value.code == environment.NO_PYTHON


def test_the_python_that_was_asked_for_is_taken_or_refused(nowhere, monkeypatch):
    versions = {"bin/python": "9.9.1", "w": "9.8.1", "o": "9.9.3"}
    found, wrong, other = (interpreter(nowhere / name, version) for name, version in versions.items())
    monkeypatch.setenv("X_PYTHON", other)
    assert environment.find_python("x", "9.9", None) == (other, "9.9.3")
    assert environment.find_python("x", "9.9", found) == (found, "9.9.1")
    with pytest.raises(EnvironmentProblem, match=f"needs Python 9.9, and {wrong} is not one"):
        environment.find_python("x", "9.9", wrong)


@pytest.fixture
def made(tmp_path, monkeypatch) -> list[Path]:
    """A place for environments and a pip that works at once; the list of the environments that were made."""
    folders: list[Path] = []
    monkeypatch.setenv("ERA_ENVIRONMENTS", str(tmp_path / "kept"))
    monkeypatch.setattr(environment, "HERE", tmp_path)
    monkeypatch.setattr(environment, "PAUSES", (0, 0))
    monkeypatch.setattr(environment, "freeze", lambda python: ["a==1"])

    def pip(python: Path, *arguments: str) -> int:
        if "-r" in arguments:
            folders.append(python.parents[1])
        return 0

    monkeypatch.setattr(environment, "pip", pip)
    real = subprocess.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        extra = ["--without-pip"] if command[1:3] == ["-m", "venv"] else []  # a tenth of the time
        return real([*command, *extra], **options)

    monkeypatch.setattr(environment.subprocess, "run", run)
    (tmp_path / "x.txt").write_text("a==1\n")
    return folders


def test_an_environment_is_kept_until_its_list_changes_and_removed_when_nobody_used_it_for_long(made, tmp_path, monkeypatch):
    first = environment.ready("x", sys.executable)
    assert environment.version_of(str(first)) == FULL
    for text in ("a==1\n", "# a comment changes nothing\na==1\n"):
        (tmp_path / "x.txt").write_text(text)
        assert environment.ready("x", sys.executable) == first
    assert made == [first.parents[1]]
    (tmp_path / "x.txt").write_text("a==2\n")
    second = environment.ready("x", sys.executable)
    assert made == [first.parents[1], second.parents[1]]
    assert second != first
    assert first.exists()
    now = environment.time.time()
    monkeypatch.setattr(environment.time, "time", lambda: now + 31 * 86400)
    environment.remove_unused(second.parents[1])
    assert not first.parents[1].exists()
    assert second.exists()


def test_an_unfinished_environment_is_made_again(made):
    python = environment.ready("x", sys.executable)
    (python.parents[1] / "installed.txt").unlink()
    left = python.parents[1] / "half"
    left.touch()
    assert environment.ready("x", sys.executable) == python
    assert not left.exists()
    assert len(made) == 2


def test_three_tries_then_a_code_of_its_own(made, monkeypatch, capfd):
    tries: list[str] = []
    monkeypatch.setattr(environment, "pip", lambda python, *arguments: tries.append(arguments[-1]) or 1)
    assert environment.main(["x", "--python", sys.executable]) == environment.NOT_INSTALLED
    assert len(tries) == 3
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].endswith("could not be installed in 3 tries; pip says why above.")
    monkeypatch.setattr(environment, "pip", lambda python, *arguments: 0)
    assert environment.main(["x", "--python", sys.executable]) == 0  # it can be made later
    assert Path(capfd.readouterr().out.splitlines()[-1]).is_file()


def test_one_wheel_for_each_major_version_of_opencv(monkeypatch):
    lines = ["numpy==2.1.3", "opencv-contrib-python==4.14.0.94", "opencv-python==5.0.0.93", "opencv-python-headless==5.0.0.93"]
    monkeypatch.setattr(check, "freeze", lambda python: lines)
    assert list(check.opencv_wheels(Path("python")).values()) == ["opencv-python==5.0.0.93", "opencv-contrib-python==4.14.0.94"]


def test_what_a_run_added_or_moved_is_brought_back(tmp_path, monkeypatch):
    python = tmp_path / "bin" / "python"
    (tmp_path / "installed.txt").write_text("a==1\nb==1\nc==1\n")
    monkeypatch.setattr(check, "freeze", lambda python: ["a==1", "b==2", "extra==1"])
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(check, "pip", lambda python, *arguments: calls.append(arguments) or 0)
    check.restore(python)
    assert calls == [("uninstall", "--quiet", "--yes", "extra"), ("install", "--quiet", "--no-deps", "b==1", "c==1")]


def test_the_notebook_is_cloned_from_what_is_on_disk(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "package").mkdir(parents=True)
    for name in (".gitignore", "package/committed.py", "gone.py", "ignored.log"):
        (root / name).write_text("*.log\n" if name == ".gitignore" else "old")
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "package/committed.py").write_text("edited")
    (root / "gone.py").unlink()
    (root / "new.py").touch()
    monkeypatch.setattr(check, "ROOT", root)
    check.commit_working_tree(tmp_path / "copy")
    subprocess.run(["git", "clone", "-q", (tmp_path / "copy").as_uri(), str(tmp_path / "clone")], check=True)
    files = {str(file.relative_to(tmp_path / "clone")) for file in (tmp_path / "clone").rglob("*") if file.is_file()}
    assert {file for file in files if not file.startswith(".git/")} == {".gitignore", "package/committed.py", "new.py"}
    assert (tmp_path / "clone/package/committed.py").read_text() == "edited"
