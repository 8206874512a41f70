"""The wheel holds every room: built, installed into an empty folder, and each module imported from there."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = (
    "import importlib, json, pkgutil, era_support_packages as package\n"
    "names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.') if '__main__' not in m.name]\n"
    "print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))"
)


@pytest.mark.slow
def test_each_module_can_be_imported_from_the_wheel(tmp_path: Path) -> None:
    def pip(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    pip("wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "era_support_packages/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"era_support_packages"}  # no tools, no tests
    pip("install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    command = [sys.executable, "-c", LIST]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "", "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in (ROOT / "era_support_packages").rglob("*.py")
    }
    assert found.keys() == {name for name in modules if not name.endswith("__main__")} - {"era_support_packages"}
    assert all(file.startswith(str(tmp_path)) for file in found.values())
