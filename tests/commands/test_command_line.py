"""Which sub-command is meant, what it prints, and its exit code."""

import gc
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from tiny_run import TINY

import era_support_packages
from era_support_packages.commands import command_line
from era_support_packages.commands.command_line import COMMANDS, main
from era_support_packages.commands.output import aside, results

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "record.schema.json").read_text())


def test_help_names_every_command_and_exit_code(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert "130 stopped by Ctrl-C" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "Exit codes" in capsys.readouterr().out


def test_the_version(capsys):
    assert (main(["--version"]), capsys.readouterr().out) == (0, f"{era_support_packages.__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--preset", "smoke", "--seed", "3"], ["train", "--preset", "smoke", "--seed", "3"]])
def test_without_a_command_it_is_train(arguments, monkeypatch):
    asked = []
    monkeypatch.setattr("era_support_packages.commands.train.run", lambda options: asked.append(options) or 0)
    assert main(arguments) == 0
    assert (asked[0]["preset"], asked[0]["seed"]) == (("smoke", 3) if arguments else ("auto", None))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "'train'"),
        (["runs", "delte", "x"], "invalid choice: 'delte'"),
        (["runs", "list", "first"], "--where name=first"),
        (["runs", "rename", "first"], "the new name"),
        (["runs", "delete"], "names of the runs"),
        (["runs", "--sort", "tset"], "'test'"),
        (["runs", "--where", "presett=cpu"], "'preset'"),
        (["runs", "--where", "preset"], "NAME=VALUE"),
        (["runs", "delete", "frist", "--yes"], "'first'"),
        (["runs", "delete", "first"], "--yes"),
        (["compare", "first"], "two or more"),
        (["compare", "first", "first"], "twice"),
        (["summary", "ResNet19"], "'ResNet18'"),
        (["summary", "--pixels", "4"], "8 to 512 px"),
        (["data", "digit"], "'digits'"),
        (["predict", "runs/first", "missing.png"], "missing.png is not there"),
        (["explain", "runs/first", "runs/first/config.json", "--method", "gradcan"], "'gradcam'"),
        (["explain", "runs/first", "runs/first/config.json", "--class", "ten"], "choose one of '0'"),
        (["train", "--epochs", "0"], "epochs is 0"),
    ],
)
def test_a_bad_value_is_one_sentence_with_what_to_do(arguments, said, here, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["first", "second", "second-again"]


def test_a_record_for_programs_is_what_the_docs_say(here, capsys):
    assert main(["train", *TINY, "--max-lr", "0.01", "--run-name", "first", "--json"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    jsonschema.validate(record, SCHEMA)
    assert "Not trained now" in said.err
    for name in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in record.items() if key != name}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "more": 1}, SCHEMA)


def test_train_draws_the_figures(here):
    assert main(["train", *TINY, "--max-lr", "0.01", "--run-name", "first", "--quiet", "--figures"]) == 0
    assert {"training_log.png", "incorrect_classification.png", "gradCAM.png"} <= set(os.listdir(here / "runs" / "first"))


def test_the_range_test_without_training(here, capsys):
    assert main(["lr-find", *TINY, "--run-name", "tested", "--range-test-iterations", "16", "--json", "--figures"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["max_lr"] == 0.01  # given by the preset
    assert {"lr_finder.png", "range_test.json"} <= set(os.listdir(here / "runs" / "tested"))


def test_what_data_holds(capsys):
    assert main(["data", "digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["by_class"]["test"]["0"], len(found["classes"])) == ({"train": 1437, "test": 360}, 36, 10)


def test_the_layers_of_a_network(capsys):
    assert main(["summary", "ResNet18", "--classes", "10"]) == 0
    assert "Total params: 11,173,962" in capsys.readouterr().out


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("era_support_packages.commands.runs.run", stopped)
    assert (main(["runs"]), capsys.readouterr().err) == (130, "")


def test_a_closed_pipe_ends_quietly(here):
    command = [sys.executable, "-m", "era_support_packages", "runs", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        child.stdout.close()  # before it prints
        said = child.stderr.read()
        assert (child.wait(60), said) == (141, b"")


@pytest.mark.parametrize("module", ["era_support_packages", "era_support_packages.notebook"])
def test_closed_streams_change_nothing(module, here):
    command = f"{sys.executable} -m {module} --help >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_help_on_a_full_disk_says_so(here):
    command = ["bash", "-c", f"{sys.executable} -m era_support_packages --help > /dev/full"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "cannot be written (No space left on device): make room" in ended.stderr


def test_what_stands_in_for_stdout_is_thrown_away_without_a_flush(monkeypatch):
    """Python would say "Exception ignored in ..." on stderr, from 3.13 on."""

    class Unread(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    ignored, unread = [], Unread()
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    monkeypatch.setattr(sys, "stdout", unread)
    with aside({"json": True, "quiet": False}):
        assert results() is unread
    gc.collect()
    assert ignored == []
    monkeypatch.setattr(Unread, "flush", io.StringIO.flush)


def test_the_command_line_imports_no_pytorch_to_list_runs(here):
    code = "import sys; from era_support_packages.__main__ import main; main(['runs']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == 0


def test_training_imports_nothing_that_only_maps_and_figures_need():
    code = "import sys; import era_support_packages.runs.launched; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    needless = {"torchvision", "pytorch_grad_cam", "albumentations", "matplotlib", "scipy.stats", "sklearn", "pandas"}
    assert needless & set(loaded.stdout.split()) == set()
    assert "torch" in loaded.stdout.split()


def test_every_command_is_a_module_with_the_two_functions():
    for module, purpose in command_line.COMMANDS.values():
        command = __import__(f"era_support_packages.commands.{module}", fromlist=["run"])
        assert callable(command.add_options)
        assert callable(command.run)
        assert purpose[0].islower()
