"""What is given to the notebook: read from its cells or from a command line, and refused in one sentence where it is bad."""

import ast
import dataclasses
import re
from typing import Any

import pytest
from notebook_files import code_cells, read, tagged
from stopping import raising

from era_support_packages.notebook.parameters import KNOBS, MOST_MISTAKES, OTHERS, Knobs, ParameterError, Parameters, parse
from era_support_packages.runs import preparation
from era_support_packages.system.command_values import read_value, shield_negative_numbers
from era_support_packages.system.settings import comment, fields
from era_support_packages.training.config import TrainingConfig

NOTEBOOK = read()
CELL = tagged(NOTEBOOK, "parameters")[0].source
INJECTED = "# Parameters\nlabel_smoothing = 0.1\nepochs = 2\n"


def kernel(*sources: str) -> dict[str, Any]:
    """The namespace of a kernel that has run these cells."""
    namespace: dict[str, Any] = {"In": [""]}
    for source in sources:
        namespace["In"].append(source)
        exec(source, namespace)
    return namespace


def changed(*sources: str) -> dict[str, Any]:
    """What these cells change."""
    return Parameters.read(kernel(*sources)).changed


def edited(**values: Any) -> str:
    """The parameters cell with some of its values changed."""
    lines = CELL.splitlines()
    for name, value in values.items():
        (index,) = [index for index, line in enumerate(lines) if line.startswith(f"{name}:")]
        lines[index] = f"{lines[index].split(' = ')[0]} = {value!r}"
    return "\n".join(lines)


def test_the_committed_cell_holds_the_knobs_with_their_values_and_what_the_help_says():
    values = kernel(CELL)
    assert {name: values[name] for name in (*KNOBS, "more")} == {**KNOBS, "more": {}}
    assigned = [node.target.id for node in ast.parse(CELL).body if isinstance(node, ast.AnnAssign)]
    assert sorted(assigned) == sorted([*KNOBS, "more"])
    comments = {line.split(":")[0]: line.split("  # ")[1] for line in CELL.splitlines() if " = " in line}
    assert {name: comments[name] for name in KNOBS} == {name: comment(field) for name, field in fields(Knobs).items()}


def test_knobs_and_others_are_all_there_is_and_no_other_cell_uses_their_names():
    names = {field.name for field in dataclasses.fields(TrainingConfig)} - {"preset_name"}
    assert names <= {*KNOBS, *OTHERS}
    assert not set(KNOBS) & set(OTHERS)
    assert set(OTHERS) < names | {"devices"}
    nodes = [node for cell in code_cells(NOTEBOOK) if cell.source != CELL for node in ast.walk(ast.parse(cell.source))]
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert bound
    assert not bound & {*KNOBS, *OTHERS, "more"}


UNTOUCHED = {"dataset": "auto", "seed": 0, "output_dir": "runs"}


def test_the_cell_as_it_is_changes_nothing():
    parameters = Parameters.read(kernel(CELL))
    assert (parameters.changed, parameters.overrides, parameters.ignored) == ({}, UNTOUCHED, ())


def test_knobs_and_more_are_read():
    of_the_run = {"epochs": 3, "cutout": 8, "label_smoothing": 0.0}
    more = {"cutout": 8, "label_smoothing": 0.0}
    parameters = Parameters.read(kernel(edited(epochs=3, preset="smoke", mistakes=4, more=more)))
    assert parameters.changed == {"preset": "smoke", "mistakes": 4, **of_the_run}
    assert parameters.overrides == {**UNTOUCHED, **of_the_run}


def test_what_papermill_injects_and_what_a_person_adds_to_the_cell_is_read_by_name():
    assert changed(CELL, INJECTED, "import os\nfound = here = root = None") == {"epochs": 2, "label_smoothing": 0.1}
    assert changed(CELL + "\ncutout = 8\nweight_decay: float = 0.001") == {"cutout": 8, "weight_decay": 0.001}


@pytest.mark.parametrize("cells", [(CELL, "# Parameters\nlable_smoothing = 0.1\n"), (CELL + "\nlable_smoothing = 0.1",)])
def test_a_name_that_is_none_is_refused_with_what_was_meant(cells):
    with pytest.raises(ParameterError, match=r"^Unknown parameter 'lable_smoothing': did you mean 'label_smoothing'\?$"):
        changed(*cells)


def test_a_session_that_goes_on_for_long_raises_no_false_alarm():
    """Injected once, then edited by hand and run again, with variables of the person's own in other cells."""
    own = "import time\nbase = 3\n_private = 4\ndevice = 'mine'\nepoch = 5\nrun = config = train = None"
    before = Parameters.read(kernel(CELL, INJECTED, own, "# matplotlib inline"))
    assert (before.changed, before.ignored) == ({"epochs": 2, "label_smoothing": 0.1}, ("device",))
    after = Parameters.read(kernel(CELL, INJECTED, own, CELL + "\n_base = 'x'"))
    assert (after.changed, after.ignored) == ({}, ("label_smoothing", "device"))  # it was injected for the cell of before
    assert changed(CELL, INJECTED, own, CELL, "# Parameters\ncutout = 4\n") == {"cutout": 4}


@pytest.mark.parametrize("cells", [["", CELL, "!ls", "%%bash\nlabel = 3", "\0", INJECTED], None], ids=["no python", "no ipython"])
def test_cells_that_cannot_be_read_do_no_harm(cells):
    namespace = kernel(CELL, INJECTED)
    namespace["In"] = cells
    if cells is None:  # then every field's name counts
        del namespace["In"]
    assert Parameters.read(namespace).changed == {"epochs": 2, "label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"epoch": 3}, "Unknown parameter 'epoch': did you mean 'epochs' or 'max_epochs'?"),
        ({"more": {"whitning": True}}, "Unknown parameter 'whitning' in more: did you mean 'whitening'?"),
        ({"more": {"seed": 3}}, "seed has a line of its own: give it there instead of in more."),
        ({"more": {"mistakes": 3}}, "mistakes has a line of its own: give it there instead of in more."),
        ({"more": [3]}, 'more is [3]; give names with values, such as {"cutout": 8, "label_smoothing": 0.0}.'),
        ({"more": {"cutout": 3}, "cutout": 4}, "cutout is given twice, by its name and in more: give it once."),
        ({"more": {"preset_name": "fast"}}, "Unknown parameter 'preset_name' in more"),  # the recipe's name without the recipe
    ],
)
def test_names_are_refused_when_they_are_read(given, sentence):
    with pytest.raises(ParameterError, match=f"^{re.escape(sentence)}"):
        Parameters.collect(given)


BAD = [
    ({"epochs": -3}, "epochs is -3; give a whole number from 1 to 10000."),
    ({"epochs": "many"}, "epochs is 'many'; give a whole number from 1 to 10000."),
    ({"preset": "fats"}, "Unknown preset 'fats': did you mean 'fast' or 'auto'?"),
    ({"preset": 3}, "Unknown preset 3: choose one of "),
    ({"mistakes": 0}, f"mistakes is 0; give a whole number from 1 to {MOST_MISTAKES}."),
    ({"mistakes": True}, f"mistakes is True; give a whole number from 1 to {MOST_MISTAKES}."),
    ({"mistakes": MOST_MISTAKES + 1}, f"mistakes is {MOST_MISTAKES + 1}; give a whole number"),
    ({"checks": "most"}, "checks is 'most': choose one of 'auto', 'full'."),
    ({"method": "gradcma"}, "method is 'gradcma': did you mean 'gradcam'"),
    ({"method": ["gradcam"]}, "method is ['gradcam']: "),
    ({"check_sanity": "yes"}, "check_sanity is 'yes'; give True or False."),
    ({"resume": None}, "resume is None; give True or False."),
    ({"data_root": 3}, "data_root is 3; give the path of a folder as text, or None."),
    ({"data_root": "nowhere"}, "data_root is 'nowhere', but there is no such folder: make it, or give one that is there."),
    ({"dataset": "no/such"}, "Unknown data set 'no/such': give one of auto, cifar10, cifar100, digits, or a path"),
    ({"dataset": 3}, "dataset is 3; give it as text."),
    ({"finished_run": "nowhere"}, "finished_run is 'nowhere', but there is no such folder: give that of a run."),
    ({"output_dir": "file/deeper"}, "output_dir 'file/deeper' cannot be used ("),
    ({"more": {"label_smoothing": 2}}, "label_smoothing is 2; give a number from 0 to 0.99."),
    ({"device": "cuda:99"}, "device is 'cuda:99', but this machine has "),
    (
        {"seed": -1, "check_sanity": 1},
        "check_sanity is 1; give True or False. seed is -1; give a whole number from 0 to 4294967295.",
    ),
]


@pytest.mark.parametrize(("given", "sentence"), BAD, ids=[str(given) for given, _ in BAD])
def test_a_bad_value_is_refused_before_anything_is_done(given, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "prepare", raising(AssertionError("something was prepared")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ParameterError) as raised:
        Parameters.collect(given).prepare()
    assert str(raised.value).startswith(sentence)
    shown = raised.value._render_traceback_()  # what a notebook shows instead of the way through the code
    assert " ".join(shown) == str(raised.value)
    assert max(map(len, shown)) <= 96
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}/deeper", "~nobody-is-called-so/runs"], ids=["long", "deep", "home"])
@pytest.mark.parametrize("name", ["dataset", "data_root", "finished_run", "output_dir"])
def test_a_path_that_no_system_takes_is_refused_like_any_other(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if (name, path[0]) == ("output_dir", "~"):  # a folder may be called so
        Parameters.collect({name: path}).check()
        return
    with pytest.raises(ParameterError, match=re.escape(repr(path))):
        Parameters.collect({name: path}).check()


def test_good_values_are_handed_on(monkeypatch, tmp_path):
    seen, lines = {}, []
    monkeypatch.setattr(preparation, "prepare", lambda preset, report, **values: seen.update(preset=preset, **values))
    given = {"preset": "smoke", "dataset": "digits", "data_root": str(tmp_path), "more": {"cutout": 4}, "model": None}
    dataclasses.replace(Parameters.collect(given), ignored=("device",)).prepare(lines.append)
    expected = {"preset": "smoke", "data_root": str(tmp_path), "resume": True, "finished_run": None, "dataset": "digits"}
    assert seen == {**expected, "seed": 0, "output_dir": "runs", "cutout": 4}
    assert lines == ["Note: the variable device of this notebook is no parameter; to make it one, write it into more."]


def test_beside_a_finished_run_only_what_a_person_changed_counts_as_given(monkeypatch):
    seen = {}
    monkeypatch.setattr(preparation, "prepare", lambda preset, report, **values: seen.update(values))
    monkeypatch.setattr(Parameters, "check", lambda parameters: None)
    Parameters.collect({**KNOBS, "finished_run": "x", "seed": 3, "more": {"cutout": 4}}).prepare()
    assert seen == {"data_root": None, "resume": True, "finished_run": "x", "seed": 3, "cutout": 4}


def test_what_the_machine_or_the_data_refuse_is_a_sentence_too(monkeypatch):
    monkeypatch.setattr(preparation, "prepare", raising(FileNotFoundError("No images there: give another folder.")))
    with pytest.raises(ParameterError, match=r"^No images there: give another folder\.$"):
        Parameters.collect({"dataset": "digits"}).prepare()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("None", None),
        ("True", True),
        ("cpu", "cpu"),
        ("0.1", 0.1),
        ("007", "007"),
        (".01", 0.01),
        ("1.", 1.0),
        ("1_000", 1000),
        ("-.5e-1", -0.05),
        (" -1e-3", -0.001),
        ("1.5.2", "1.5.2"),
        (".", "."),
        ("(16, 0.7)", (16, 0.7)),
        ("[[16, 0.5], [32, 0.5]]", [[16, 0.5], [32, 0.5]]),
        ("[[16, 1.0]]", [[16, 1.0]]),
        ("[(16, 0.7), (32, 0.3)]", [(16, 0.7), (32, 0.3)]),
        ("{'cutout': 8, 'whitening': True}", {"cutout": 8, "whitening": True}),
        ('{"whitening": True}', {"whitening": True}),
        ("(cats", "(cats"),
        ("__import__('os')", "__import__('os')"),
        ("9" * 5000, "9" * 5000),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_is_read_as_in_python_or_as_json_or_else_as_text(text, value):
    assert (read_value(text), type(read_value(text))) == (value, type(value))
    assert parse([("a", text)]) == {"a": value}


def test_what_is_text_stays_text():
    pairs = [("run_name", "2024"), ("dataset", "10"), ("data_root", "None")]
    assert parse(pairs) == {"run_name": "2024", "dataset": "10", "data_root": None}


def test_a_name_is_given_once():
    with pytest.raises(ParameterError, match=r"^seed is given twice: give it once\.$"):
        parse([("seed", "1"), ("cutout", "8"), ("seed", "2")])


def test_negative_numbers_are_not_taken_for_options():
    words = ["-p", "max_lr", "-1e-3", "-3", "-inf", "--seed"]
    assert shield_negative_numbers(words) == ["-p", "max_lr", " -1e-3", "-3", " -inf", "--seed"]


def test_papermill_gets_the_names_that_the_cell_has():
    parameters = Parameters.collect({"seed": 3, "cutout": 4, "more": {"whitening": True}})
    assert parameters.for_papermill() == {"seed": 3, "more": {"cutout": 4, "whitening": True}}
    assert Parameters.collect({"seed": 3}).for_papermill() == {"seed": 3}
