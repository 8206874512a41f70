"""In a real kernel: who is at the notebook, and what a person sees of an error that is a sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from era_support_packages.system.front_end import is_interactive

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kernel() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str, allow_stdin: bool = False) -> list[dict[str, Any]]:
    """What a cell sends: the contents of its streams and errors."""
    seen: list[dict[str, Any]] = []
    client.execute_interactive(
        code, allow_stdin=allow_stdin, timeout=120, output_hook=lambda message: seen.append(message["content"])
    )
    return [content for content in seen if content.keys() & {"text", "ename"}]


@pytest.mark.parametrize("answers", [True, False])
def test_a_person_is_one_who_could_answer(kernel: BlockingKernelClient, answers: bool) -> None:
    code = "from era_support_packages.system.front_end import is_interactive; print(is_interactive())"
    assert run(kernel, code, answers) == [{"name": "stdout", "text": f"{answers}\n"}]


def test_nobody_is_at_a_plain_process() -> None:
    assert not is_interactive()


def test_a_bad_value_is_shown_as_its_sentence_alone(kernel: BlockingKernelClient) -> None:
    code = "from era_support_packages.notebook.parameters import Parameters\nParameters({'epochs': -3}).check()"
    (error,) = run(kernel, code, True)
    assert error["ename"] == "ParameterError"
    assert error["traceback"] == [error["evalue"]] == ["epochs is -3; give a whole number from 1 to 10000."]


def test_an_error_of_the_program_is_shown_with_the_way_to_it(kernel: BlockingKernelClient) -> None:
    (error,) = run(
        kernel, "from era_support_packages.training.config import TrainingConfig\nTrainingConfig.preset('cpu', epochs=[])"
    )
    assert error["ename"] == "ValueError"
    assert len(error["traceback"]) > 1
