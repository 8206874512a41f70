"""`train` over two nodes, which two network namespaces stand for: to its end, and with the link cut in the middle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import kill_several
import pytest
from tiny_run import TINY
from two_nodes import LINK, Node, two_nodes, why_not

from era_support_packages.training.checkpoint import Checkpoint

pytestmark = [pytest.mark.several, pytest.mark.skipif(bool(reason := why_not()), reason=reason)]


@pytest.fixture
def nodes():
    with two_nodes() as both:
        yield both


def begin(number: int, nodes: tuple[Node, Node], folder: Path, *options: str, timeout: int = 300) -> subprocess.Popen:
    """The line of docs/scaling.md on one of the nodes; the folder of the run lies on the first alone."""
    own = folder / f"node {number}"
    own.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)]
    command += ["--nproc-per-node", "1", "--master-addr", nodes[0].address, "--master-port", "29500"]
    command += ["--local-addr", nodes[number].address, "-m", "era_support_packages", "train", *TINY, *options]
    environment = {**kill_several.ENVIRONMENT, "GLOO_SOCKET_IFNAME": LINK, "ERA_COLLECTIVE_TIMEOUT": str(timeout)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(nodes[number].command(*command, "--run-name", "run"), cwd=own, env=environment, **pipes)


def test_two_nodes_train_one_run(nodes, tmp_path):
    running = [begin(number, nodes, tmp_path, "--json") for number in range(2)]
    (out, err), (others_out, others_err) = [process.communicate(timeout=500) for process in running]
    assert [process.returncode for process in running] == [0, 0], err + others_err
    record = json.loads(out)
    assert (record["processes"], record["complete"], others_out) == (2, True, "")
    assert (tmp_path / "node 0" / "runs" / "run" / "checkpoint.pt").is_file()
    assert list((tmp_path / "node 1").iterdir()) == []


def test_a_link_that_is_cut_ends_both_in_a_sentence_and_the_checkpoint_stays(nodes, tmp_path):
    long = ["--train-images", str(1437 * 100)]
    running = [begin(number, nodes, tmp_path, *long, timeout=10) for number in range(2)]
    for line in running[0].stdout:
        if line.strip().startswith("1 "):  # the first row
            nodes[1].cut()
            break
    cut = time.monotonic()
    said = [process.communicate(timeout=500)[1] for process in running]
    assert time.monotonic() - cut < 120
    assert all(process.returncode != 0 for process in running)
    assert "Another process of this run has ended, or does not answer" in said[0]
    assert "Another process of this run has ended, or does not answer" in said[1]
    assert len(Checkpoint.load(tmp_path / "node 0" / "runs" / "run" / "checkpoint.pt").records) >= 1
