"""A step part by part, and another commit beside this one."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.unhurried
def test_a_step_is_shared_out_among_the_parts_of_the_network(bench):
    import step_layers

    config = step_layers.configuration(8, 4)
    assert (config.optimizer, config.muon_outputs, config.resolutions) == ("muon", 256, ((8, 1.0),))
    (found,) = step_layers.timeline(config, 1)
    passes = [f"{way} {name}" for way in ("forward", "backward") for name in step_layers.PARTS]
    assert sorted(found) == sorted([*passes, "update", "batch and all else"])
    assert all(milliseconds > 0 for milliseconds in found.values())

    work = step_layers.giga_flops(16, 2)
    assert work["conv1"] == pytest.approx(2 * 2 * 27 * 64 * 16 * 16 / 1e9)  # 2 images, 2 a multiply-add, taps, channels, places
    assert work["linear"] == pytest.approx(2 * 2 * 512 * 10 / 1e9)
    times = dict.fromkeys(found, 1.0) | {"backward layer1": 3.0}
    rows = {row["part"]: row for row in step_layers.rows_of([times] * 3, dict.fromkeys(step_layers.PARTS, 0.5))}
    assert rows["layer1"]["share %"] == 25.0  # 4 of 16 ms
    assert rows["layer1"]["forward GFLOP/s"] == 500
    assert rows["layer1"]["backward GFLOP/s"] == pytest.approx(1000 / 3)  # twice the work
    assert rows["conv1"]["backward GFLOP/s"] == 500  # the images need no gradient
    assert sum(row["share %"] for row in rows.values()) == pytest.approx(100)


def test_another_commit_is_measured_in_a_worktree_that_goes_away(bench):
    import throughput

    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("this is no git checkout")
    with throughput.checkout("HEAD") as tree:
        assert (tree / "benchmarks" / "throughput.py").is_file()
    assert not tree.exists()
    assert str(tree) not in subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    with pytest.raises(ValueError, match="no-such-commit is no commit"), throughput.checkout("no-such-commit"):
        pass


def test_a_precision_does_not_go_with_another_commit(bench, monkeypatch, capsys):
    import throughput

    monkeypatch.setattr("sys.argv", ["throughput.py", "--against", "HEAD", "--precision", "fp32"])
    with pytest.raises(SystemExit) as stop:
        throughput.main()
    assert stop.value.code == 2
    assert "--precision is of this checkout alone" in capsys.readouterr().err


def test_the_page_has_the_stored_profile_and_what_a_change_brought():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    results = ROOT / "benchmarks" / "results"
    for row in json.loads((results / "step_layers.json").read_text())["rows"]:
        numbers = [row[name] for name in ("forward ms", "backward ms", "share %", "forward GFLOP/s", "backward GFLOP/s")]
        cells = [number if isinstance(number, str) else f"{number:.1f}" for number in numbers[:3]]
        cells += [number if isinstance(number, str) else f"{number:.0f}" for number in numbers[3:]]
        assert f"| {row['part']} | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") in page, row
    for file in ("throughput_16px_against", "throughput_against"):
        for row in json.loads((results / f"{file}.json").read_text())["rows"]:
            assert f"| {row['images/s (median)']:.0f} | {row['slowest']:.0f} to {row['fastest']:.0f} |" in page, row
