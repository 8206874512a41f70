"""Which faults can be planted, and which tests are run for one."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
LIMIT = 3


def smaller(a: int, b: int = 2) -> bool:
    if (
        a < b
        and not a
    ):
        return True
    return f"{1}" in "x"
"""


@pytest.fixture(scope="module")
def plant_faults():
    spec = importlib.util.spec_from_file_location("plant_faults", ROOT / "tools" / "plant_faults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_expression_that_can_matter_is_changed_once(plant_faults, tmp_path, monkeypatch):
    monkeypatch.setattr(plant_faults, "ROOT", tmp_path)
    file = tmp_path / "a.py"
    file.write_text(TEXT)
    changes = {(fault.line, fault.old, fault.new) for fault in plant_faults.faults(file)}
    assert changes == {
        (1, "3", "4"),
        (4, "2", "3"),
        (6, "<", "<="),
        (7, "and", "or"),
        (7, "not ", ""),
        (9, "True", "False"),
        (10, "in", "not in"),
    }


@pytest.mark.parametrize(("line", "lines"), [(1, [1]), (4, [4]), (6, [5, 6, 7, 8]), (9, [9]), (10, [10])])
def test_a_statement_ends_where_its_body_begins(plant_faults, line, lines):
    assert list(plant_faults.statement(TEXT, line)) == lines


def test_a_decorator_belongs_to_what_it_decorates(plant_faults):
    assert list(plant_faults.statement("A = 1\n\n\n@cache(size=1)\n@other\ndef smaller(a):\n    return a < 1\n", 4)) == [4, 5, 6]


def test_the_tests_that_reach_a_line_run_those_of_its_module_first(plant_faults, tmp_path):
    class Reached:
        def contexts_by_lineno(self, _):
            return {
                1: [""],
                9: ["tests/other/test_b.py::test_2|run", "tests/test_a.py::test_1|setup"],
                10: ["tests/test_a.py::test_3|run"],
            }

    (tmp_path / "era_support_packages").mkdir()
    (tmp_path / "era_support_packages" / "a.py").write_text(TEXT)

    def tests_at(line):
        return plant_faults.reaching(plant_faults.Fault("era_support_packages/a.py", line, 0, 1, "", ""), Reached(), tmp_path)

    assert tests_at(9) == ["tests/test_a.py::test_1", "tests/other/test_b.py::test_2"]
    assert tests_at(1) == ["tests/test_a.py::test_1", "tests/test_a.py::test_3", "tests/other/test_b.py::test_2"]
    assert tests_at(6) == []


def test_only_at_the_top_are_runs_left_out_of_a_copy(plant_faults):
    assert plant_faults.not_needed(str(ROOT), ["runs", "data", "tests", ".git"]) == {"runs", "data", ".git"}
    assert plant_faults.not_needed(str(ROOT / "tests"), ["runs", "__pycache__"]) == {"__pycache__"}
