"""The scripts of docs/scaling.md, run with stand-ins for the cluster: what they would start on each machine."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from era_support_packages.commands.command_line import build_parser
from era_support_packages.models.resnet import ResNet18
from era_support_packages.training.muon import ITERATIONS
from era_support_packages.training.muon_sharing import WORTH_A_BYTE, operations, owners
from era_support_packages.training.setup import muon_filters

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
TORCHRUN = '#!/bin/bash\nprintf "%s\\n" "$@" > "$OUT/$RANK_HERE"\n'
SRUN = '#!/bin/bash\nfor node in 0 1; do SLURM_NODEID=$node RANK_HERE=$node "$@"; done\n'
SCONTROL = '#!/bin/bash\n[ "$*" = "show hostnames gpu[7-8]" ] && printf "gpu7\\ngpu8\\n"\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Runs a script among the stand-ins; what torchrun was given on each machine, by its number."""
    programs, out = tmp_path / "bin", tmp_path / "out"
    for folder in (programs, out):
        folder.mkdir()
    for name, text in {"torchrun": TORCHRUN, "srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(script: str, **values: str) -> dict[int, list[str]]:
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OUT": str(out), **values}
        subprocess.run(["bash", "-eu", "-c", script], env=environment, check=True, timeout=60)
        return {int(file.name): file.read_text().splitlines() for file in out.iterdir()}

    return run


def check(words: list[str], rank: int, master: str) -> None:
    """torchrun and `train` would take these words."""
    found = get_args_parser().parse_args(words)
    assert (found.nnodes, found.node_rank, found.nproc_per_node) == ("2", rank, "8")
    assert (found.master_addr, found.master_port) == (master, 29500)
    assert (found.module, found.training_script) == (True, "era_support_packages")
    name, *options = found.training_script_args
    assert build_parser(name).read(options)["preset"] == "fast"


def test_the_slurm_script(started):
    (script,) = blocks("bash")
    found = started(script, SLURM_JOB_NODELIST="gpu[7-8]", SLURM_NNODES="2")
    assert sorted(found) == [0, 1]
    for rank, words in found.items():
        check(words, rank, "gpu7")
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script, re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("2", "1", "8")


@pytest.mark.parametrize("rank", [0, 1])
def test_the_skypilot_file(rank, started):
    (text,) = blocks("yaml")
    task = yaml.safe_load(text)
    assert set(task) == {"name", "num_nodes", "workdir", "resources", "setup", "run"}
    values = {"SKYPILOT_NUM_NODES": str(task["num_nodes"]), "SKYPILOT_NODE_RANK": str(rank), "RANK_HERE": str(rank)}
    values |= {"SKYPILOT_NUM_GPUS_PER_NODE": task["resources"]["accelerators"].split(":")[1]}
    check(started(task["run"], SKYPILOT_NODE_IPS="10.0.0.7\n10.0.0.8", **values)[rank], rank, "10.0.0.7")


def test_the_two_lines_to_type():
    lines = re.findall(r"^torchrun (--nnodes .*)$", PAGE, re.MULTILINE)
    for rank, line in enumerate(lines):
        check(line.split(), rank, "10.0.0.1")
    assert len(lines) == 2


def test_the_rule_of_the_products():
    """What the page says of a ResNet18 and of the two thresholds."""
    shapes = [(len(weight), weight[0].numel()) for weight in muon_filters(ResNet18())]

    def saved_a_byte(kind, bytes_a_value):
        loads, own = [0, 0], [0, 0]
        for shape, owner in zip(shapes, owners(shapes, 2, ITERATIONS, kind), strict=True):
            loads[owner] += operations(shape, ITERATIONS, kind)
            own[owner] += shape[0] * shape[1]
        return (sum(loads) - max(loads)) / (max(own) * bytes_a_value)

    text = " ".join(PAGE.split())
    assert f"saves {saved_a_byte('cpu', 4):,.0f} operations a byte with two processes on CPUs" in text
    assert f"half as many bytes, {saved_a_byte('cuda', 2):,.0f}, and each" in text
    assert WORTH_A_BYTE == {"cpu": 50, "cuda": 3000}
    assert "more than 50 operations" in text
    assert "more than 3,000" in text
