"""What the processes of one run wait for, and what they say where one of them is lost."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_network

from era_support_packages.runs import prepare, recording, train_in_folder
from era_support_packages.runs.together import in_words
from era_support_packages.system import processes as system
from era_support_packages.system.processes import Processes, ProcessLostError, leave, timeout
from era_support_packages.training.sharing import process_count

LOST = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40000")


@pytest.mark.parametrize("error", [LOST, torch.distributed.DistNetworkError("recvValue failed")])
def test_a_lost_process_is_a_sentence_also_before_and_after_the_training(error):
    found = in_words(error)
    assert isinstance(found, ProcessLostError)
    assert str(found).startswith("Another process of this run has ended, or does not answer, ")


@pytest.mark.parametrize("error", [ValueError("no data"), RuntimeError("mat1 and mat2"), KeyboardInterrupt()])
def test_any_other_error_stays_what_it_is(error):
    assert in_words(error) is error


def test_a_process_that_is_lost_after_the_end_is_not_missed(monkeypatch):
    ended = []
    monkeypatch.setattr(system.dist, "destroy_process_group", lambda: ended.append(1))
    for error in (LOST, RuntimeError("out of order")):
        monkeypatch.setattr(system.dist, "all_reduce", lambda _, error=error: (_ for _ in ()).throw(error))
        if error is LOST:
            leave()
        else:
            with pytest.raises(RuntimeError, match="out of order"):
                leave()
    assert ended == [1]


def test_the_others_wait_while_a_tracker_is_opened_and_closed(tmp_path, monkeypatch):
    """A service may take longer than the seconds that they wait for each other within training."""
    seen = []

    class Watched(Processes):
        def settled(self, work):
            seen.append("all wait")
            return work()

    class Service:
        def __init__(self, *_):
            seen.append("opened")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.append("closed")

        def rows(self, _):
            pass

    result = SimpleNamespace(history=SimpleNamespace(resolution=8))
    monkeypatch.setattr(recording, "Tracker", Service)
    monkeypatch.setattr(recording, "fit", lambda *_: (seen.append("trained"), result)[1])
    prepared = prepare("smoke", dataset="digits", output_dir=str(tmp_path), test_time_flip=False)
    assert train_in_folder(tiny_network(10), replace(prepared, processes=Watched(1, 2)), lambda _: None) is result
    assert seen[-5:] == ["all wait", "opened", "trained", "all wait", "closed"]


# ---- how long they wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "seconds"), [({}, 50), ({"ERA_COLLECTIVE_TIMEOUT": "300"}, 300)])
def test_the_seconds_that_they_wait(given, seconds):
    assert timeout(given) == seconds


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "abc", "86401", "9" * 30])
def test_seconds_that_are_no_number_are_refused_before_any_process_is_started(given, monkeypatch):
    monkeypatch.setenv("ERA_COLLECTIVE_TIMEOUT", given)
    with pytest.raises(ValueError, match="a whole number from 1 to 86400, such as 50"):
        process_count(2, "cpu", torch.device("cpu"))
    assert process_count(1, "cpu", torch.device("cpu")) == 1
