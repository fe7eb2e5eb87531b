"""The files and folders of a job, without a cluster."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.orchestration.cluster.job_spec import CONFIG_FILE, JobSpec, job_environment, make_job

DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 200}
RUN: dict[str, Any] = {"name": "tiny", "method": "iql_mixed", "target": DATA, "sources": [DATA | {"name": "other"}]}
SWEEP: dict[str, Any] = {
    "name": "grid",
    "base": "base/run.yaml",
    "settings": {"policy": {"num_steps": 60}},
    "axes": {"method": ["iql_mixed", "bc_mixed"], "seed": [0, 1]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/run.yaml").write_text(yaml.safe_dump(RUN))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(SWEEP))
    return tmp_path


def refused(folder: Path, content: dict[str, Any], *overrides: str, run_dir: str | None = "/shared/x") -> str:
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as error:
        make_job(folder / "case.yaml", overrides, run_dir)
    return str(error.value)


def test_the_command_of_a_run(folder: Path) -> None:
    job = make_job(folder / "base/run.yaml", ["seed=3", "policy.filter={rule: none}"], "/shared/runs/a b")
    assert job.kind == "run" and job.name == "tiny"
    variable, *command = shlex.split(job.entrypoint)
    assert variable == "V2A_STORE=${V2A_STORE:-/shared/runs/artifacts}"
    assert command == [
        *["python", "-m", "v2a_ray.cli.main", "run", "experiment.yaml", "seed=3", "policy.filter={rule: none}"],
        *["--run-dir", "/shared/runs/a b"],
    ]


def test_a_sweep_is_the_same_from_the_file_that_is_shipped(folder: Path, tmp_path: Path) -> None:
    overrides = ["axes.seed=[5, 6, 7]", "policy.num_steps=70", "base=base/run.yaml"]
    job = make_job(folder / "grid.yaml", overrides, "/shared/runs/grid")
    assert job.kind == "sweep" and job.overrides == ("policy.num_steps=70",)
    shipped = tmp_path / "elsewhere"
    shipped.mkdir()
    job.write(shipped)
    assert [file.name for file in shipped.iterdir()] == [CONFIG_FILE]
    there = load_sweep(shipped / CONFIG_FILE, job.overrides)
    here = load_sweep(folder / "grid.yaml", overrides)
    keys = [{name: node.key for name, node in trial.plan.items()} for trial in here.trials]
    assert keys == [{name: node.key for name, node in trial.plan.items()} for trial in there.trials]
    assert len(keys) == 6 and there.name == "grid"
    # A job's working folder changes each time; a resumed sweep must not depend on it.
    assert {trial.config.data_root for trial in there.trials} == {"/"}


def test_jobs_are_the_same_if_they_write_to_the_same_folder(folder: Path) -> None:
    first = make_job(folder / "base/run.yaml", ["seed=0"], "/shared/a")
    assert first.identity == make_job(folder / "base/run.yaml", ["seed=1"], "/shared/a").identity
    assert first.identity != make_job(folder / "base/run.yaml", ["seed=0"], "/shared/b").identity
    assert first.identity.startswith("v2a-tiny-")


def test_results_lie_beside_the_store(folder: Path) -> None:
    run = make_job(folder / "base/run.yaml", ["store=/shared/v2a/artifacts", "seed=4"])
    assert run.run_dir == "/shared/v2a/tiny-iql_mixed-seed4"
    sweep = make_job(folder / "grid.yaml", ["store=/shared/v2a/artifacts"])
    assert sweep.run_dir == "/shared/v2a/grid"


def test_a_results_folder_is_required(folder: Path) -> None:
    message = refused(folder, RUN, run_dir=None)
    assert "where results go on the cluster is not said" in message and "--run-dir /SHARED/runs/" in message


@pytest.mark.parametrize(
    ("key", "value"), [("store", "runs/artifacts"), ("store", "~/artifacts"), ("data_root", "."), ("data_root", "data")]
)
def test_relative_folders_are_refused(folder: Path, key: str, value: str) -> None:
    message = refused(folder, RUN | {key: value})
    assert f"case.yaml: {key}: {value!r} is relative to a folder of this machine" in message
    assert "storage that every node mounts" in message and ("s3://" in message) == (key == "data_root")
    assert key in refused(folder, RUN, f"{key}={value}")


def test_an_error_on_the_command_line_names_the_command_line(folder: Path) -> None:
    message = refused(folder, SWEEP, "scheduler.kind=fastest")
    assert "command line: scheduler.kind: " in message and "case.yaml:" not in message


def test_a_relative_run_dir_is_refused(folder: Path) -> None:
    assert "--run-dir: 'runs/x' is relative" in refused(folder, RUN, run_dir="runs/x")


def test_artifacts_need_a_folder_or_object_storage(folder: Path) -> None:
    (folder / "case.yaml").write_text(yaml.safe_dump(RUN))
    assert make_job(folder / "case.yaml", ("store=s3://bucket/x",), "/shared/x").overrides == ("store=s3://bucket/x",)
    assert "http://host/x: is no object storage" in refused(folder, RUN, "store=http://host/x")


def test_relative_data_are_refused_also_where_an_axis_names_them(folder: Path) -> None:
    data = {"domain": "hopper/stock", "path": "target.hdf5"}
    message = refused(folder, RUN | {"target": data})
    assert "target.path: 'target.hdf5' is relative" in message and "data are not uploaded" in message
    axes = {"mix": {"a": {"target": data}, "b": {"target": DATA}}}
    assert "axes.mix.a.target.path: 'target.hdf5' is relative" in refused(folder, SWEEP | {"axes": axes})


@pytest.mark.parametrize("root", ["/shared/data", "s3://bucket/data"])
def test_data_below_an_absolute_root_may_be_relative(folder: Path, root: str) -> None:
    data = {"domain": "hopper/stock", "path": "target.hdf5"}
    (folder / "case.yaml").write_text(yaml.safe_dump(RUN | {"target": data, "data_root": root}))
    assert make_job(folder / "case.yaml", (), "/shared/x").content["data_root"] == root


def test_data_of_a_sweep_need_not_be_here(folder: Path) -> None:
    axes = {"target": {"a": {"target": {"domain": "hopper/stock", "path": "/shared/data/target.hdf5"}}}}
    (folder / "case.yaml").write_text(yaml.safe_dump(SWEEP | {"axes": axes}))
    assert make_job(folder / "case.yaml", (), "/shared/x").kind == "sweep"


def test_invalid_runs_are_refused_before_submission(folder: Path) -> None:
    assert "polcy" in refused(folder, RUN | {"polcy": {}})
    axes = {"method": ["iql_mixed", "magic"]}
    assert "unknown method 'magic'" in refused(folder, SWEEP | {"axes": axes})


def test_variables_of_a_job_travel_in_a_file_that_nobody_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "it's a secret")
    monkeypatch.delenv("NOT_HERE", raising=False)
    spec = JobSpec("run", "x", {}, (), "/shared/x", environment=job_environment(["FROM_HERE", "GIVEN=a=b"]))
    assert "secret" not in spec.entrypoint and "secret" not in repr(spec)
    spec.write(tmp_path)
    assert (tmp_path / "environment.sh").stat().st_mode & 0o077 == 0
    command = spec.entrypoint.split(";")[0] + '; printf "%s|%s" "$FROM_HERE" "$GIVEN"'
    shown = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True, env={})
    assert shown.stdout == "it's a secret|a=b"
    for wrong, message in (("NOT_HERE", "is not set here"), ("1X=2", "is no name of a variable")):
        with pytest.raises(ConfigError, match=message):
            job_environment([wrong])
