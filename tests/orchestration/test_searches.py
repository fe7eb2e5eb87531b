"""Searches and schedulers: draws, early ends, and resumed sweeps that repeat nothing."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.tiny_sweeps import RATES, rows_of, sweep, write_sweep
from v2a_ray.checksums import write_sealed
from v2a_ray.errors import ConfigError, StorageError
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.experiments.sweep_config import SearchConfig
from v2a_ray.files import sole_writer
from v2a_ray.orchestration.sweep.population import finished_member, member_settings
from v2a_ray.orchestration.sweep.run_sweep import open_sweep, run_sweep
from v2a_ray.orchestration.sweep.search import SealedJournal, Suggestions
from v2a_ray.report.search_table import pareto_front, search_markdown

pytestmark = pytest.mark.usefixtures("ray_cluster")


def searched(sweep: Any) -> SearchConfig:
    assert sweep.config.search is not None
    found: SearchConfig = sweep.config.search
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searches")


def policies(folder: Path) -> dict[str, int]:
    """Time at which each policy artifact was made, by key."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("artifacts/policy/*/artifact.json")}


@pytest.mark.slow
def test_a_random_search_repeats_its_draws_and_trains_them(workspace: Path) -> None:
    search = {"num_trials": 3, "seed": 5, "space": RATES | {"policy.width": {"choice": [8, 16]}}}
    path = write_sweep(workspace, name="random", axes={"seed": [0, 1]}, search=search)
    first, again = load_sweep(path), load_sweep(path)
    assert [trial.config for trial in first.trials] == [trial.config for trial in again.trials]
    rates = [trial.config.policy.learning_rate for trial in first.trials]
    assert len(set(rates)) == 3 and all(1e-4 <= rate <= 1e-3 for rate in rates)
    # Every draw is trained under both seeds.
    assert {(trial.labels["seed"], trial.labels["sample"]) for trial in first.trials} == {
        (seed, sample) for seed in "01" for sample in "012"
    }
    results = sweep(path)
    assert {row["status"] for row in rows_of(path)} == {"finished"}
    assert sorted(row["config/policy.learning_rate"] for row in rows_of(path)) == sorted(rates)
    table = search_markdown(results, searched(first), first.objectives)
    assert table.splitlines()[0].startswith("| task | method | learning_rate | expectile | width |")
    # One line per draw and seed, the best first.
    scores = [float(line.split(" | ")[-2]) for line in table.splitlines()[2:]]
    assert len(scores) == 6 and scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_optuna_goes_on_where_it_stopped(workspace: Path) -> None:
    search = {"algorithm": "optuna", "num_trials": 2, "space": RATES}
    path = write_sweep(workspace, name="optuna", axes={"policy.data": ["mixed", "target"]}, search=search)
    before = {row["artifact/policy"] for row in _finished(path, sweep(path))}
    made = policies(workspace)
    assert len(before) == 4
    # More draws continue the same search: earlier draws are not trained again.
    results = sweep(path, "search.num_trials=3")
    rows = _finished(path, results)
    assert len(rows) == 6 and before < {row["artifact/policy"] for row in rows}
    assert all(policies(workspace)[key] == time for key, time in made.items())
    # The folder identifies the sweep from any working directory.
    again = open_sweep(path.with_suffix(""))
    assert again.num_trials == 6
    assert [result.score for result in run_sweep(again, path.with_suffix(""))] == [result.score for result in results]
    assert policies(workspace).keys() == made.keys() | {row["artifact/policy"] for row in rows}


@pytest.mark.parametrize("line", range(8))
@pytest.mark.parametrize("torn", [False, True])
def test_draws_after_a_damaged_journal_line_are_repeated(
    workspace: Path, tmp_path: Path, line: int, torn: bool
) -> None:
    search = {"algorithm": "optuna", "num_trials": 3, "space": RATES}
    drawn = load_sweep(write_sweep(workspace, name="journal", axes={"seed": [0]}, search=search))

    def train(study: Suggestions, number: int) -> dict[str, Any]:
        settings = study.suggest(f"{number}")
        assert isinstance(settings, dict)
        study.on_trial_complete(f"{number}", {"finished": True, "normalized_score_mean": float(number)})
        return dict(settings["suggestion"]["values"])

    first = Suggestions(drawn, tmp_path, {})
    values = [train(first, number) for number in range(2)]
    file = tmp_path / "optuna" / "0000.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    whole = lines[line]
    lines[line] = whole[: len(whole) // 2] if torn else whole.replace(b'"', b"'", 1)
    file.write_bytes(b"".join(lines[: line + 1] if torn else lines))

    again = Suggestions(drawn, tmp_path, {})
    assert len(list(file.parent.glob("*.damaged-*"))) == 1
    values = [train(again, number) for number in range(again.num_left)]
    assert all(found.keys() == RATES.keys() for found in values)
    assert again.num_left == 0 and again.suggest("more") == "FINISHED"
    assert len(again.trials()) == 3
    # The lines that follow are whole: another process reads all of them.
    assert Suggestions(drawn, tmp_path, {}).num_left == 0


def test_a_kill_in_the_middle_of_a_draw_does_not_hide_the_trial(workspace: Path, tmp_path: Path) -> None:
    search = {"algorithm": "optuna", "num_trials": 1, "space": {"policy.width": {"choice": [8, 16]}, **RATES}}
    drawn = load_sweep(write_sweep(workspace, name="halved", axes={"seed": [0]}, search=search))
    first = Suggestions(drawn, tmp_path, {})
    first.studies[0].ask().suggest_categorical("policy.width", [8, 16])
    again = Suggestions(drawn, tmp_path, {})
    assert again.trials() == [], "a sweep asks for the trials so far before it goes on"
    settings = again.suggest("0")
    assert isinstance(settings, dict) and settings["suggestion"]["values"].keys() == {"policy.width", *RATES}
    (mine,), (truth,) = again.trials(), Suggestions(drawn, tmp_path, {}).trials()
    assert mine.config == truth.config and mine.plan["policy"].key == truth.plan["policy"].key


class Killed(BaseException):
    """Stands for SIGKILL."""


def die_at(patch: pytest.MonkeyPatch, call: int) -> list[str]:
    """From the `call`-th system call that changes files on, every one fails. Returns the calls, as they come."""
    calls: list[str] = []

    def dying(name: str, real: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) > call:
                raise Killed(name)
            return real(*arguments, **options)

        return wrapped

    for name in ("open", "fsync", "link", "rename", "replace", "unlink"):
        patch.setattr(os, name, dying(name, getattr(os, name)))
    return calls


def test_a_kill_during_the_repair_of_a_journal_loses_nothing(tmp_path: Path) -> None:
    for call in itertools.count():
        path = tmp_path / str(call) / "0000.jsonl"
        path.parent.mkdir()
        logs = [{"op": number} for number in range(5)]
        SealedJournal(path).append_logs(logs)
        torn = path.read_bytes() + b'{"op": 5, "chec'
        path.write_bytes(torn)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            calls = die_at(patch, call)
            SealedJournal(path)
        assert SealedJournal(path).logs == logs, f"killed at {calls}"
        assert torn in [file.read_bytes() for file in path.parent.glob("0000.jsonl.damaged-*")]
        if len(calls) <= call:
            return


def _finished(path: Path, results: list[Any]) -> list[dict[str, Any]]:
    rows = rows_of(path)
    assert len(rows) == len(results) and {row["status"] for row in rows} == {"finished"}
    return rows


@pytest.mark.slow
def test_two_objectives_have_a_front(workspace: Path) -> None:
    search = {
        "algorithm": "optuna",
        "num_trials": 3,
        "space": {"policy.filter.keep_fraction": {"uniform": [0.1, 1.0]}},
        "objectives": {"normalized_score_mean": "max", "data_kept": "max"},
    }
    path = write_sweep(workspace, name="front", axes={"method": ["igdf"]}, search=search)
    results = sweep(path)
    kept = [result.evaluation["data_kept"] for result in results]
    fractions = [result.config.policy.filter.keep_fraction for result in results]
    # Of 16 drawn transitions, rounded up as the filter does.
    assert kept == [pytest.approx(max(1, round(16 * fraction)) / 16, abs=1 / 16) for fraction in fractions]
    assert "*" in search_markdown(results, searched(load_sweep(path)), load_sweep(path).objectives)


def test_the_front_holds_the_undominated_results() -> None:
    assert pareto_front([[1.0, 5.0], [2.0, 4.0], [1.0, 4.0], [0.5, 5.0], [2.0, 4.0]]) == [0, 1, 4]


@pytest.mark.slow
def test_asha_ends_the_worse_of_every_task_and_leaves_no_checkpoint(workspace: Path) -> None:
    scheduler = {"kind": "asha", "grace_steps": 10, "reduction_factor": 2}
    axes = {"policy.data": ["mixed", "target"]}
    path = write_sweep(
        workspace, name="asha", axes=axes, search={"num_trials": 5, "seed": 3, "space": RATES}, scheduler=scheduler
    )
    results = sweep(path)
    status = {(result.task, result.status.split(" at ")[0]) for result in results}
    # Trials of different tasks are not compared: each task has a trial that reached its end.
    assert {("mixed", "finished"), ("target", "finished")} <= status
    ended = [result for result in results if result.status.startswith("stopped at step")]
    assert ended and all(result.score is None for result in ended)
    assert not list(workspace.glob("artifacts/policy/*.work"))
    made = policies(workspace)
    assert [result.status for result in sweep(path)] == [result.status for result in results]
    assert policies(workspace) == made


@pytest.mark.slow
def test_the_median_rule_ends_trials_before_their_end(workspace: Path) -> None:
    scheduler = {"kind": "median", "grace_steps": 10}
    search = {"num_trials": 6, "seed": 1, "space": RATES}
    results = sweep(write_sweep(workspace, name="median", search=search, scheduler=scheduler))
    assert {result.status.split(" at ")[0] for result in results} <= {"finished", "stopped"}
    assert any(result.status == "finished" for result in results)


@pytest.mark.slow
def test_a_population_exchanges_settings_and_ends_whole(workspace: Path) -> None:
    search = {"num_trials": 3, "space": RATES}
    settings = {"evaluation": {"interval_steps": 20}}
    scheduler = {"kind": "pbt", "grace_steps": 20}
    path = write_sweep(workspace, name="pbt", settings=settings, search=search, scheduler=scheduler)
    results = sweep(path)
    assert [result.status for result in results] == ["finished"] * 3
    schedules = [
        json.loads((path.with_suffix("") / f"population/{number:04d}/schedule.json").read_text()) for number in range(3)
    ]
    assert all(schedule["step"] == 60 and schedule["entries"][0]["step"] == 0 for schedule in schedules)
    for result, schedule in zip(results, schedules, strict=True):
        last = schedule["entries"][-1]
        assert result.config.policy.learning_rate == last["policy.learning_rate"]
        assert 1e-4 <= last["policy.learning_rate"] <= 1e-3 and 0.5 <= last["policy.expectile"] <= 0.9
        assert [entry["step"] for entry in schedule["entries"]] == sorted(
            {entry["step"] for entry in schedule["entries"]}
        )
        assert result.curves is not None and result.curves["step"].to_pylist() == [10, 20, 30, 40, 50, 60]
    # A member copied another: a schedule with several entries begins like another member's.
    assert any(len(schedule["entries"]) > 1 for schedule in schedules)
    times = {file: file.stat().st_mtime_ns for file in path.with_suffix("").glob("population/*/finished/*")}
    assert [result.score for result in sweep(path)] == [result.score for result in results]
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    # Damage a file of a finished member and a schedule: the lost files are made again from the checkpoint.
    scores = [result.score for result in results]
    members = path.with_suffix("") / "population"
    for file in ("0000/finished/evaluation.json", "0001/finished/member.json", "0002/schedule.json"):
        content = bytearray((members / file).read_bytes())
        content[len(content) // 2] ^= 1
        (members / file).write_bytes(content)
    assert [result.score for result in sweep(path)] == scores
    assert finished_member(members / "0000") and finished_member(members / "0001")


@pytest.mark.parametrize("in_place", [(), ("checkpoint.safetensors",), ("checkpoint.safetensors", "schedule.json")])
def test_the_next_run_completes_an_interrupted_exchange(workspace: Path, in_place: tuple[str, ...]) -> None:
    path = write_sweep(
        workspace, name="parted", search={"num_trials": 1, "space": RATES}, scheduler={"kind": "pbt", "grace_steps": 20}
    )
    folder = workspace / f"parted-{len(in_place)}"
    member = folder / "population/0000"
    (member / "taken").mkdir(parents=True)
    mine, taken = ({"policy.learning_rate": 1e-4, "policy.expectile": value} for value in (0.6, 0.7))
    write_sealed(member / "schedule.json", {"step": 20, "entries": [{"step": 0, **mine}]})
    write_sealed(member / "taken/schedule.json", {"step": 40, "entries": [{"step": 0, **taken}]})
    (member / "checkpoint.safetensors").write_bytes(b"my networks")
    (member / "taken/checkpoint.safetensors").write_bytes(b"another's networks")
    for name in in_place:
        (member / "taken" / name).replace(member / name)
    assert member_settings(load_sweep(path), folder, 0)["values"] == taken
    assert (member / "checkpoint.safetensors").read_bytes() == b"another's networks"
    assert sorted(file.name for file in member.iterdir()) == ["checkpoint.safetensors", "schedule.json"]


@pytest.mark.slow
def test_tensorboard_has_the_hyperparameters(workspace: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = write_sweep(workspace, name="curves", axes={"seed": [0]}, search={"num_trials": 1, "space": RATES})
    (result,) = sweep(path)
    (folder,) = (path.with_suffix("") / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    scores = [event.value for event in events.Scalars("evaluation/normalized_score_mean")]
    assert len(scores) == 6 and scores[-1] == pytest.approx(result.score)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"policy.learning_rate" in content and b"sample" in content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"search": {"num_trials": 0, "space": RATES}}, "search.num_trials"),
        ({"search": {"num_trials": 2, "space": {}}}, "search.space"),
        ({"search": {"num_trials": 2, "space": {"policy.width": {"uniform": [1, 2], "choice": [1]}}}}, "exactly one"),
        ({"search": {"num_trials": 2, "space": {"policy.width": {"int_uniform": [9, 2]}}}}, "low < high"),
        ({"search": {"num_trials": 2, "space": {"policy.width": {"log_uniform": [0, 2]}}}}, "positive"),
        ({"search": {"num_trials": 2, "space": {"policy.widht": {"choice": [8]}}}}, "did you mean 'width'"),
        # An invalid end of a distribution is found before anything is trained.
        ({"search": {"num_trials": 2, "space": {"policy.expectile": {"uniform": [0.5, 1.5]}}}}, "expectile"),
        (
            {"search": {"algorithm": "optuna", "num_trials": 2, "space": {"alignment.width": {"choice": [8, 16]}}}},
            "list its values as an axis",
        ),
        (
            {"search": {"num_trials": 2, "space": RATES, "objectives": {"data_kept": "max", "return_mean": "max"}}},
            "optuna",
        ),
        ({"scheduler": {"kind": "pbt"}, "axes": {"seed": [0]}}, "search.algorithm=random"),
        (
            {"scheduler": {"kind": "pbt"}, "axes": {"seed": [0, 1]}, "search": {"num_trials": 2, "space": RATES}},
            "a population is of one task",
        ),
        (
            {"scheduler": {"kind": "asha"}, "axes": {"seed": [0]}, "settings": {"evaluation": {"interval_steps": 0}}},
            "before the end",
        ),
        ({"scheduler": {"kind": "hyperband"}, "axes": {"seed": [0]}}, "scheduler.kind"),
        ({"policies_per_trial": 2, "scheduler": {"kind": "asha"}, "axes": {"seed": [0]}}, "trial by trial"),
        ({"name": "nothing"}, "nothing to vary"),
        (
            {"axes": {"seed": list(range(101)), "policy.width": list(range(1, 101))}},
            "10,100 trials (101 seed × 100 policy.width)",
        ),
    ],
)
def test_a_wrong_search_is_one_message(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(tmp_path, **content))
    assert message in str(caught.value)


def test_missing_cluster_resources_are_reported_at_once(workspace: Path) -> None:
    path = write_sweep(workspace, name="lacks", axes={"seed": [0]}, resources={"gpus_per_trial": 1})
    with pytest.raises(ConfigError, match="asks for 1 CPU and 1 GPU, and the largest node has"):
        sweep(path)


def test_a_second_driver_is_kept_out_of_the_folder(workspace: Path) -> None:
    path = write_sweep(workspace, name="alone", axes={"seed": [0]})
    path.with_suffix("").mkdir()
    with sole_writer(path.with_suffix("")), pytest.raises(StorageError, match="another process is at work here"):
        sweep(path)
    assert not (path.with_suffix("") / "trials.json").exists()
