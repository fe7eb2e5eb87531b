"""Benchmarks record their results; a result replaces an earlier one of the same name."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import d3rlpy_iql, peers, policies_at_once
from benchmarks.record import EMULATION, Result, interleaved, measured_on, record, render

ROOT = Path(__file__).parents[1]


def test_results_are_appended_or_replaced_by_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    record([Result("a", 2.0, 1.0, "steps/s", 2.0, 1.5), Result("b", 1.0, 1.0, "s", 1.0, 2.0)], path=path)
    record([Result("a", 1.2, 1.0, "steps/s", 1.2, 1.5)], path=path)
    record([Result("c", 1.0, 1.0, "s", 1.0, 2.0)], path=path, write=False)
    entries = json.loads(path.read_text())
    assert [(entry["name"], entry["ratio"], entry["holds"]) for entry in entries] == [
        ("a", 1.2, False),
        ("b", 1.0, False),
    ]
    keys = {"name", "ours", "reference", "unit", "ratio", "target", "holds", "command", "versions", "processor"}
    assert all(entry.keys() == keys for entry in entries)
    assert entries[0]["versions"].keys() == {"python", "ray", "torch", "mujoco", "numpy", "gymnasium", "cpus"}


def test_results_of_other_processors_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for processor, ratio in (("one", 2.0), ("another", 1.0), ("one", 3.0)):
        record([Result("a", 5.0, 1.0, "s", ratio, 1.5, processor=processor)], path=path)
    assert [(entry["processor"], entry["ratio"]) for entry in json.loads(path.read_text())] == [
        ("one", 3.0),
        ("another", 1.0),
    ]
    console = Console(width=100, file=io.StringIO())
    console.print(render(json.loads(path.read_text())))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "one" in lines[0] and "another" in lines[0]
    assert lines[2].split() == ["a", "s", "1.5", "5", "3.00", "holds", "5", "1.00", "missed"]


def test_emulated_processor_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATION, raising=False)
    real = measured_on()
    monkeypatch.setenv(EMULATION, "avx2")
    assert "emulated" not in real and measured_on().endswith("avx2 emulated")


@pytest.mark.parametrize("less_is_better", [False, True])
def test_ratio_is_the_advantage_of_our_result(less_is_better: bool) -> None:
    order = []
    ours, theirs = iter([2.0, 4.0, 100.0]), iter([1.0, 1.0, 1.0])

    def mine() -> float:
        order.append("ours")
        return next(ours)

    def reference() -> float:
        order.append("reference")
        return next(theirs)

    measured = interleaved(mine, reference, 3, less_is_better=less_is_better)
    assert measured == (4.0, 1.0, 0.25 if less_is_better else 4.0)
    assert order == ["ours", "reference", "reference", "ours", "ours", "reference"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["benchmarks.rollout_batching", "--quick", "--num-episodes", "2", "--behavior", "random"],
        pytest.param(["benchmarks.many_policies", "--quick"], marks=pytest.mark.slow),
        pytest.param(["benchmarks.training_steps", "--quick"], marks=pytest.mark.slow),
        pytest.param(["benchmarks", "--quick"], marks=pytest.mark.slow),
    ],
)
def test_benchmark_scripts_run_and_quick_runs_record_nothing(arguments: list[str]) -> None:
    results = ROOT / "benchmarks" / "results.json"
    before = results.read_bytes() if results.exists() else None
    run = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "target" in run.stdout
    assert before == (results.read_bytes() if results.exists() else None)


@pytest.mark.slow
def test_policies_at_once_prints_a_row_per_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["policies_at_once", "--quick", "--device", "cpu"])
    policies_at_once.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "8", "32", "64", "128"]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)


def test_peer_that_cannot_be_installed_exits_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(sys, "argv", ["d3rlpy_iql", "--quick"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert d3rlpy_iql.main() == 2
    message = capsys.readouterr().err
    assert message.startswith("d3rlpy is not available")
    assert message.count("\n") == 1
