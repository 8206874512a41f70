"""In a real kernel: who is at the notebook, and what a person sees of an error that is a sentence."""

from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from era_support_packages.system.front_end import is_interactive

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run():
    """Runs a cell and gives what it sends: the contents of its streams and errors."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))

    def run_cell(code: str, allow_stdin: bool) -> list[dict]:
        seen: list[dict] = []
        hook = {"output_hook": lambda message: seen.append(message["content"])}
        client.execute_interactive(code, allow_stdin=allow_stdin, timeout=120, **hook)
        return [content for content in seen if content.keys() & {"text", "ename"}]

    yield run_cell
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_person_is_one_who_could_answer(run):
    code = "from era_support_packages.system.front_end import is_interactive; print(is_interactive())"
    assert run(code, True) == [{"name": "stdout", "text": "True\n"}]
    assert run(code, False) == [{"name": "stdout", "text": "False\n"}]
    assert not is_interactive()  # nobody is at a plain process


def test_a_bad_value_is_shown_as_its_sentence_alone(run):
    (error,) = run("from era_support_packages.notebook.parameters import Parameters\nParameters({'epochs': -3}).check()", True)
    assert error["ename"] == "ParameterError"
    assert error["traceback"] == [error["evalue"]] == ["epochs is -3; give a whole number from 1 to 10000."]


def test_an_error_of_the_program_is_shown_with_the_way_to_it(run):
    code = "from era_support_packages.training.config import TrainingConfig\nTrainingConfig.preset('cpu', epochs=[])"
    (error,) = run(code, False)
    assert error["ename"] == "ValueError"
    assert len(error["traceback"]) > 1
