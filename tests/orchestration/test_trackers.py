"""Policies in MLflow's file store and in W&B's offline folders: a run each, whatever is reused or repeated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import imageio.v3
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.orchestration.test_no_simulator import ALONE, recording
from tests.orchestration.test_no_simulator import SETTINGS as ARM
from tests.orchestration.tiny_sweeps import SETTINGS, sweep, write_sweep
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError, DivergenceError
from v2a_ray.experiments.reading import resolve
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.orchestration.train.listener import Listener
from v2a_ray.orchestration.train.run import run_experiment
from v2a_ray.settings.yaml_files import merge

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("wandb")
from tests.orchestration.wandb_files import read_offline  # noqa: E402 - imports wandb

LOGGERS = ["mlflow", "wandb"]


class Warnings(Listener):
    """Keeps what the user is warned of."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warned(self, text: str) -> None:
        self.said.append(text)


def text_of(events: EventAccumulator, tag: str) -> str:
    (text,) = events.Tensors(f"{tag}/text_summary")
    return str(text.tensor_proto.string_val[0].decode())


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> Path:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def runs(group: str) -> list[Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(group)
    assert experiment
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: str(run.info.run_name))


def test_a_sweep_logs_a_run_per_policy_once(workspace: Path) -> None:
    path = write_sweep(
        workspace, name="tracked", axes={"policy.learning_rate": [1e-3, 3e-4], "seed": [0]}, loggers=LOGGERS
    )
    sweep(path)
    first, second = runs("tracked")
    assert first.info.run_name == "learning_rate=0.0003,seed=0"
    assert first.data.params == {"policy.learning_rate": "0.0003", "seed": "0"}
    assert first.data.tags["method"] == "iql_mixed" and first.data.tags["v2a.sweep"] == "tracked"
    client = mlflow.MlflowClient()
    scores = client.get_metric_history(first.info.run_id, "evaluation/normalized_score_mean")
    assert [score.step for score in scores] == [10, 20, 30, 40, 50, 60]
    text = client.download_artifacts(first.info.run_id, "config.yaml", str(workspace))
    assert yaml.safe_load(Path(text).read_text())["policy"]["learning_rate"] == 3e-4
    folder = path.with_suffix("")
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    assert len(list(folder.glob("tensorboard/*/events*"))) == 2, "one file a policy"

    # The same command logs nothing again, and what is logged again replaces what is there.
    sweep(path)
    assert [run.info.run_id for run in runs("tracked")] == [first.info.run_id, second.info.run_id]
    (folder / "logged.jsonl").unlink()
    sweep(path)
    assert len(runs("tracked")) == 2 and len(list(folder.glob("wandb/offline-run-*"))) == 2
    events = EventAccumulator(str(folder / "tensorboard/0.0003-0")).Reload()
    assert len(events.Scalars("evaluation/normalized_score_mean")) == 6
    hyperparameters = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"policy.learning_rate" in hyperparameters and b"0.0003" not in hyperparameters, "a number, no text"

    # In another folder all policies are reused, and logged.
    shutil.rmtree(folder)
    sweep(path)
    assert len(runs("tracked")) == 2


def test_a_run_is_logged_and_its_curves_stand_once(workspace: Path) -> None:
    config = resolve(SETTINGS | {"name": "single", "store": str(workspace / "artifacts"), "loggers": ["mlflow"]})
    for _ in range(2):
        run_experiment(config, make_plan(config), workspace / "run")
        shutil.rmtree(workspace / "artifacts/policy")  # so that it is computed again
    (logged,) = runs("single")
    assert logged.data.params == {"method": "iql_mixed", "seed": "0"}
    events = EventAccumulator(str(workspace / "run/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("evaluation/normalized_score_mean")] == [10, 20, 30, 40, 50, 60]


@pytest.mark.slow
def test_failed_policies_are_logged_with_their_reason_until_they_finish(workspace: Path) -> None:
    axes = {"policy.learning_rate": [1e30, 3e-4]}
    settings = {"policy": {"checkpoint_interval_steps": 5}}
    path = write_sweep(workspace, name="partly", axes=axes, loggers=LOGGERS, settings=settings)
    sweep(path)
    finished, failed = runs("partly")
    assert (finished.info.status, finished.data.tags["state"]) == ("FINISHED", "finished")
    assert (failed.info.status, failed.data.tags["state"]) == ("FAILED", "failed")
    assert "reason" not in finished.data.tags and "is not finite" in failed.data.tags["reason"]
    assert failed.data.params == {"policy.learning_rate": "1e+30"}
    offline = [read_offline(run) for run in path.with_suffix("").glob("wandb/offline-run-*/*.wandb")]
    ((code, config),) = [each for each in offline if each[0]]
    assert code == 1 and config["state"] == "failed" and "is not finite" in config["reason"]
    assert config["policy.learning_rate"] == 1e30
    events = EventAccumulator(str(path.with_suffix("") / "tensorboard/1e+30")).Reload()
    assert "is not finite" in text_of(events, "failed")

    # What failed is tried again, and the same failure is one run.
    sweep(path)
    assert [run.info.run_id for run in runs("partly")] == [finished.info.run_id, failed.info.run_id]


def test_a_run_that_fails_is_logged_and_keeps_its_curves(workspace: Path) -> None:
    fails = {"learning_rate": 1e30, "log_interval_steps": 1, "checkpoint_interval_steps": 1}
    settings = merge(SETTINGS, {"policy": fails})
    config = resolve(settings | {"name": "alone", "store": str(workspace / "artifacts"), "loggers": ["mlflow"]})
    for _ in range(2):
        with pytest.raises(DivergenceError):
            run_experiment(config, make_plan(config), workspace / "run")
    (logged,) = runs("alone")
    assert logged.info.status == "FAILED" and logged.data.params == {"method": "iql_mixed", "seed": "0"}
    assert logged.data.tags["reason"].startswith("policy: update step ")
    assert "is not finite" in logged.data.tags["reason"] and "policy/value_loss" in logged.data.metrics
    events = EventAccumulator(str(workspace / "run/tensorboard")).Reload()
    assert "is not finite" in text_of(events, "failed")
    assert [event.step for event in events.Scalars("policy/value_loss")] == [1]


@pytest.mark.slow
def test_the_film_of_a_finished_policy_is_logged_where_it_is_asked_for(workspace: Path) -> None:
    path = write_sweep(workspace, name="filmed", axes={"seed": [0]}, loggers=LOGGERS)
    sweep(path)
    folder, (logged,) = path.with_suffix(""), runs("filmed")
    client = mlflow.MlflowClient()
    assert [file.path for file in client.list_artifacts(logged.info.run_id)] == ["config.yaml"]
    sweep(path, "film_seconds=0.2")
    (logged,) = runs("filmed")
    film = Path(client.download_artifacts(logged.info.run_id, "film.gif", str(workspace))).read_bytes()
    assert imageio.v3.improps(film, plugin="pillow").shape[0] in range(2, 7), "at 25 frames a second, or it fell"
    assert (folder / "trials/seed=0/film.gif").read_bytes() == film
    (shown,) = EventAccumulator(str(folder / "tensorboard/0")).Reload().Images("film")
    assert shown.encoded_image_string == film and shown.width > shown.height > 0
    (sent,) = folder.glob("wandb/offline-run-*/files/media/videos/film_*.gif")
    assert sent.read_bytes() == film


@pytest.mark.slow
def test_where_no_film_can_be_drawn_one_message_says_so(workspace: Path) -> None:
    write_table(recording(8, seed=0), workspace / "target", robot="real")
    settings = {**ARM, **ALONE, "data_root": str(workspace), "store": str(workspace / "store"), "film_seconds": 1}
    path = workspace / "blind.yaml"
    path.write_text(yaml.safe_dump({"name": "blind", "settings": settings, "axes": {"seed": [0, 1]}}))
    (workspace / "blind").mkdir()
    listener = Warnings()
    results = run_sweep(load_sweep(path), workspace / "blind", listener)
    assert [result.status for result in results] == ["finished"] * 2
    assert [text for text in listener.said if "film" in text] == ["no film is logged: real: there is no simulator"]
    assert len(list((workspace / "blind/tensorboard").iterdir())) == 2


def test_what_would_not_log_is_said_before_anything_is_computed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    path = write_sweep(workspace, name="refused", axes={"seed": [0]}, loggers=["mlflow"])
    with pytest.raises(ConfigError, match="MLflow does not answer"):
        sweep(path)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    path = write_sweep(workspace, name="keyless", axes={"seed": [0]}, loggers=["wandb"])
    with pytest.raises(ConfigError, match="Weights & Biases refuses"):
        sweep(path)
    assert not (workspace / "artifacts").exists()
