"""Sweeps through the command line: shared upstream, tables, resume, a failing trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.command import CONFIG, v2a_here, yaml_folder
from tests.cli.finished_run import finished_run
from v2a_ray.experiments.finished import read_records, read_result
from v2a_ray.experiments.methods import DEFAULT_METHOD

SWEEP: dict[str, Any] = {
    "name": "grid",
    "base": "tiny.yaml",
    "settings": {
        "upstream_seed": 0,
        "policy": {"num_steps": 60, "log_interval_steps": 20},
        "evaluation": {"interval_steps": 30},
    },
    "axes": {
        "mix": {
            "low": {"sources": {0: {"domain": "hopper/gravity-0.5"}}},
            "high": {"sources": {0: {"domain": "hopper/gravity-2", "policy_domain": "hopper/stock"}}},
        },
        "method": ["igdf", "iql_mixed"],
        "seed": [0, 1],
    },
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yaml_folder(tmp_path_factory.mktemp("sweeps"), tiny=CONFIG, grid=SWEEP)


@pytest.fixture(scope="module")
def output(workspace: Path, ray_cluster: None) -> str:
    done = v2a_here("sweep", "grid.yaml", "--run-dir", "grid", cwd=workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_trial_is_in_the_table(workspace: Path, output: str) -> None:
    rows = pq.read_table(workspace / "grid/results.parquet").to_pylist()
    assert len(rows) == 8 and {row["status"] for row in rows} == {"finished"}
    assert len({(row["axis/mix"], row["axis/method"], row["axis/seed"]) for row in rows}) == 8
    assert all(row["num_episodes"] == 3 for row in rows)
    table = (workspace / "grid/table.md").read_text()
    assert table.splitlines()[0] == "| method | high | low | interquartile mean [95 %] |"
    rows_of_table = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert [line.split(" | ")[0] for line in rows_of_table] == ["| igdf", "| iql_mixed"]
    assert "alone" in table.splitlines()[-1], "that the spread is of the policy alone, because upstream_seed is shared"
    assert "(n=2)" in table
    assert (workspace / "grid/curves.png").stat().st_size > 5000
    assert "igdf" in output and "high" in output


def test_shared_stages_are_computed_once(workspace: Path, output: str) -> None:
    rows = pq.read_table(workspace / "grid/results.parquet").to_pylist()
    assert len({row["artifact/source"] for row in rows}) == 2
    assert len(list(workspace.glob("runs/artifacts/source/*/artifact.json"))) == 2
    assert len(list(workspace.glob("runs/artifacts/alignment/*/artifact.json"))) == 2
    assert output.count("computed alignment") == 2


def test_a_trial_is_used_like_a_run(workspace: Path, output: str) -> None:
    folders = sorted((workspace / "grid/trials").iterdir())
    assert len(folders) == 8 and folders[0].name == "method=igdf,mix=high,seed=0"
    result = read_result(folders[0])
    assert result["trial"] == {
        "labels": {"mix": "high", "method": "igdf", "seed": "0"},
        "task": "high",
        "method": "igdf",
    }
    policy = Path({stage["name"]: stage["artifact"] for stage in result["stages"]}["policy"])
    # The weights take no room twice.
    assert (folders[0] / "actor.safetensors").resolve() == (policy / "actor.safetensors").resolve()
    # What the sweep computed is told from what it found.
    (alignment,) = [stage for stage in result["stages"] if stage["name"] == "alignment"]
    assert not alignment["cached"] and alignment["seconds"] > 0
    rows = {record.folder.name: record.score for record in read_records(workspace / "grid")}
    best = max(rows, key=lambda name: rows[name] or 0)

    name = ["--trial", folders[0].name]
    done = v2a_here("evaluate", "grid", *name, "-n", "2", "-o", "numbers.json", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert folders[0].name in json.loads((workspace / "numbers.json").read_text())["policy"]
    done = v2a_here("export", "grid", "--best", cwd=workspace)
    assert done.returncode == 0 and f"{best}/policy.pt2" in done.stdout, done.stderr
    done = v2a_here("diagnose", "grid", *name, "--quick", "--max-transitions", "200", cwd=workspace)
    assert done.returncode == 0 and (folders[0] / "diagnosis").is_dir(), done.stderr
    done = v2a_here("evaluate", "grid", "--all", "-n", "1", cwd=workspace)
    assert done.returncode == 0 and done.stdout.count("seed=") == 8, done.stderr
    finished_run(workspace / "run")
    data = "store/data/data-target-0/table"
    done = v2a_here("select", "grid", "--all", "hopper/stock:medium", "--steps", "3", "--data", data, cwd=workspace)
    assert done.returncode == 0 and "hopper/stock:medium" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "grid"], "is a sweep of 8 finished trials"),
        (["export", "grid", "--trial", "method=igdf,mix=high,seed=7"], "no finished trial"),
        (["evaluate", "grid", "--best", "--all"], "exclude each other"),
        (["evaluate", "grid", "--all", "-o", "x.json"], "there are 8 trials"),
        (["export", "grid/trials/method=igdf,mix=high,seed=0", "--best"], "is no sweep"),
    ],
)
def test_a_choice_among_trials_is_one(workspace: Path, output: str, arguments: list[str], message: str) -> None:
    done = v2a_here(*arguments, cwd=workspace)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


def test_the_same_command_runs_no_trial_again(workspace: Path, output: str) -> None:
    again = v2a_here("sweep", "grid.yaml", "--run-dir", "grid", cwd=workspace)
    assert again.returncode == 0, again.stderr
    assert "computed" not in again.stdout and again.stdout.count("reused   policy") == 8


def test_a_finished_sweep_is_not_drawn_logged_or_written_again(workspace: Path, output: str) -> None:
    def made() -> dict[Path, int]:
        """Pictures, and what stands for each trial, with the identities of the files."""
        patterns = ("grid/curves.png", "grid/trials/*/*", "grid/tensorboard/**/events*")
        return {path: path.lstat().st_ino for pattern in patterns for path in workspace.glob(pattern)}

    before, logged = made(), (workspace / "grid/logged.jsonl").read_text()
    assert len(before) >= 1 + 8 * 5
    assert v2a_here("sweep", "grid.yaml", "--run-dir", "grid", cwd=workspace).returncode == 0
    assert made() == before and (workspace / "grid/logged.jsonl").read_text() == logged
    (workspace / "grid/curves.png").unlink()
    lost = next(workspace.glob("grid/trials/*/actor.safetensors"))
    lost.unlink()
    assert v2a_here("sweep", "grid.yaml", "--run-dir", "grid", cwd=workspace).returncode == 0
    assert (workspace / "grid/curves.png").stat().st_size > 5000 and lost.exists(), "what is missing is made again"


def test_a_folder_with_another_sweep_is_refused(workspace: Path, output: str) -> None:
    done = v2a_here("sweep", "grid.yaml", "axes.seed=[5]", "--run-dir", "grid", cwd=workspace)
    assert done.returncode == 2 and "other trials" in " ".join(done.stderr.split())


def test_bad_axes_name_the_combination(workspace: Path) -> None:
    done = v2a_here("sweep", "grid.yaml", "axes.method=[iql_mixed,magic]", "--run-dir", "none", cwd=workspace)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "unknown method 'magic'" in message and "method=magic" in message


def test_an_unknown_key_of_the_file_leads_to_the_list_of_keys(workspace: Path) -> None:
    done = v2a_here("sweep", "grid.yaml", "scheduler.kinds=asha", "--run-dir", "none", cwd=workspace)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and "did you mean 'kind'" in message and "v2a config --sweep" in message
    listed = v2a_here("config", "--sweep", cwd=workspace)
    assert listed.returncode == 0 and "search.algorithm" in listed.stdout and "scheduler.kind" in listed.stdout


def test_settings_are_shown_as_an_experiment_has_them(workspace: Path) -> None:
    shown = v2a_here("config", cwd=workspace).stdout
    assert f"'{DEFAULT_METHOD}'" in shown
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("upstream_seed")]
    assert "required" not in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "nowhere"], "no sweep was started here"),
        ([], "give a file, or --resume"),
        (["grid.yaml", "--resume", "x"], "give a file, or --resume"),
    ],
)
def test_resume_needs_the_folder_of_a_sweep(workspace: Path, arguments: list[str], message: str) -> None:
    done = v2a_here("sweep", *arguments, cwd=workspace)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())
