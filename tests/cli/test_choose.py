"""`v2a choose`: target, filter, mix or source, chosen by recorded data alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import v2a_ray
from benchmarks.tables import random_episodes
from tests.cli.command import CONFIG, v2a_here, yaml_folder
from tests.cli.finished_folders import write_sweep_folder
from v2a_ray.data.config import TargetSpec
from v2a_ray.data.mixing.mixture import take
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError, DomainError
from v2a_ray.evaluation.offline import OfflineNumbers
from v2a_ray.experiments.choice import CANDIDATES, FILTER, MIX, SOURCE, TARGET, allowed, choice_sweep
from v2a_ray.experiments.finished import PolicyRecord
from v2a_ray.export.choice import Choice, choose
from v2a_ray.export.selection import Candidate, SelectionData
from v2a_ray.orchestration.sweep.candidates import train_candidates
from v2a_ray.report.selection_table import choice_in_words

SMALL: dict[str, Any] = {key: value for key, value in CONFIG.items() if key != "method"} | {
    "density": {"num_steps": 20, "width": 16}
}
ROW_BY_ROW = TargetSpec(
    domain="hopper/stock", behavior="medium", path="file.hdf5", num_transitions=40, subsample="transitions"
)

NO_NUMBERS = OfflineNumbers(None, None, 0.0, 5, 100)


@pytest.mark.parametrize("rows", [True, False], ids=["single transitions", "whole episodes"])
def test_first_states_are_the_sources_where_the_target_has_none(rows: bool) -> None:
    whole, source = random_episodes(6), random_episodes(3, first=6)
    target = take(whole, ROW_BY_ROW) if rows else whole
    data = SelectionData(target, None, source, has_rewards=True, domain=parse_domain("hopper/stock"))
    split = data.split(0.2, seed=0)
    assert split.fitted.num_transitions + split.held_out.num_transitions == (
        target.num_transitions + source.num_transitions
    )
    if rows:
        assert split.first_EO is not None
        np.testing.assert_array_equal(split.first_EO, source.observation[::1000])
        alone = SelectionData(target, None, None, has_rewards=True, domain=data.domain)
        with pytest.raises(DataError, match="single transitions"):
            alone.split(0.2, seed=0)
    else:
        assert split.first_EO is None


def test_policy_that_is_not_finished_is_not_chosen(tmp_path: Path) -> None:
    scores: dict[str, dict[str, list[float]]] = {
        FILTER: {"a": []},
        **{method: {"a": [12.0]} for method in (TARGET, MIX, SOURCE)},
    }
    folder = write_sweep_folder(tmp_path / "sweep", scores, failed=("a disk was full",))
    with pytest.raises(DataError, match=rf"{FILTER} is failed: a disk was full(?s:.*)--resume"):
        choose(folder, seed=0)
    assert not (folder / "choice.json").exists()


@pytest.mark.parametrize(
    ("behaviors", "options", "trained"),
    [
        pytest.param(("random", "expert"), (), CANDIDATES, id="the source earns more", marks=pytest.mark.slow),
        pytest.param(("expert", "random"), ("--replay",), (TARGET, FILTER), id="the target earns more, replayed"),
    ],
)
def test_one_policy_is_chosen_and_the_same_command_chooses_it_again(
    behaviors: tuple[str, str],
    options: tuple[str, ...],
    trained: tuple[str, ...],
    tmp_path: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("v2a_ray.export.choice.CRITIC_STEPS", 20)
    target, far, near = (
        {"domain": f"hopper/{shift}", "behavior": behavior, "num_transitions": 600}
        for shift, behavior in (("stock", behaviors[0]), ("gravity-0.5", behaviors[1]), ("gravity-0.99", behaviors[1]))
    )
    near |= {"policy_domain": "hopper/stock"}
    yaml_folder(tmp_path, small=SMALL | {"target": target, "sources": [far, near]})
    command = ("choose", "small.yaml", "seed=3", *options)
    first = v2a_here(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "runs" / "tiny-choice" / "choice.json"
    content = json.loads(path.read_text())
    values = {method: policy["lower_value"] for method, policy in content["policies"].items()}
    assert (
        set(trained)
        == values.keys()
        == {folder.name.removeprefix("method=") for folder in (path.parent / "trials").iterdir()}
    )
    assert values[content["chosen"]] == max(values.values())
    assert content["left_out"] == [method for method in CANDIDATES if method not in trained]
    assert (content["returns"]["source"] > content["returns"]["target"]) == (MIX in trained)
    assert content["seed"] == 3
    assert f"chosen: {content['chosen']}" in first.stdout
    result = json.loads((path.parent / "trials" / content["trial"] / "result.json").read_text())
    assert result["config"]["method"] == content["chosen"]
    replayed = [(each["domain"], each["left_out"]) for each in content["replayed"]]
    names = [parse_domain(f"hopper/gravity-{factor}").name for factor in (0.99, 0.5)]
    assert replayed == (list(zip(names, (False, True), strict=True)) if options else [])
    assert [source["domain"] for source in result["config"]["sources"]] == (
        ["hopper/gravity-0.99"] if options else ["hopper/gravity-0.5", "hopper/gravity-0.99"]
    )
    assert (f"sources left out: {names[1]}" in " ".join(first.stdout.split())) == bool(options)
    again = v2a_here(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "computed" not in again.stdout and json.loads(path.read_text()) == content
    monkeypatch.chdir(tmp_path)
    assert v2a_ray.choose("small.yaml", path.parent, replay=bool(options), seed=3) == content


def test_single_transitions_cannot_be_replayed(tmp_path: Path, ray_cluster: None) -> None:
    write_table(random_episodes(2), tmp_path / "episodes", robot="hopper")
    target = {"domain": "hopper/stock", "path": str(tmp_path / "episodes"), "subsample": "transitions"}
    yaml_folder(tmp_path, small=SMALL | {"target": target | {"num_transitions": 400}})
    done = v2a_here("choose", "small.yaml", "--replay", cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "Traceback" not in done.stderr, said
    assert "20 steps in a row" in said and "without --replay" in said and "computed policy" not in done.stdout


def test_source_without_a_simulator_of_ours_is_refused_before_the_data_are_made(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"domain": "gym:Hopper-v5", "behavior": "random", "num_transitions": 400}
    yaml_folder(tmp_path, small=SMALL | {"sources": [*SMALL["sources"], source]})
    with pytest.raises(DomainError, match="a replay needs one of our robots"):
        train_candidates(choice_sweep(tmp_path / "small.yaml"), tmp_path / "runs", leave_out_far=True)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_method_on_the_command_line_is_refused(tmp_path: Path) -> None:
    yaml_folder(tmp_path, small=SMALL)
    done = v2a_here("choose", "small.yaml", "method=dvdf", cwd=tmp_path)
    assert done.returncode == 2 and "method" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("source_return", "whole"), [(900.0, True), (600.0, False), (300.0, False)])
def test_the_whole_source_may_be_taken_only_where_it_earns_more(source_return: float, whole: bool) -> None:
    methods = allowed(600.0, source_return)
    assert (MIX in methods, SOURCE in methods) == (whole, whole) and {TARGET, FILTER} <= set(methods)


def test_what_was_left_out_is_said_with_its_reason() -> None:
    candidates = {
        method: Candidate(method, NO_NUMBERS, score, None) for method, score in ((TARGET, 110.0), (FILTER, 100.0))
    }
    records = {
        method: PolicyRecord(Path(method), {"method": method}, method, "task", 0, "finished", {"target": {}})
        for method in candidates
    }
    choice = Choice(candidates, records, False, target_return=600.0, source_return=300.0, seed=0)
    assert choice.method == TARGET and choice.folder == Path(TARGET)
    left_out = "left out: iql_mixed and iql_source, because an episode of the source earns 300, one of the target 600"
    assert left_out in choice_in_words(choice)


def test_a_target_without_rewards_is_refused_before_anything_is_trained(tmp_path: Path, ray_cluster: None) -> None:
    table = random_episodes(6)
    episode = np.repeat(np.arange(table.num_episodes), table.lengths)
    rows = np.column_stack([table.observation, table.action, episode])
    names = [*(f"s{index}" for index in range(11)), *(f"a{index}" for index in range(3)), "run"]
    np.savetxt(tmp_path / "silent.csv", rows, delimiter=",", header=",".join(names), comments="")
    columns = {"observation": "s*", "action": "a*", "episode": "run"}
    target = {"domain": "hopper/stock", "path": str(tmp_path / "silent.csv"), "columns": columns}
    yaml_folder(tmp_path, silent=SMALL | {"target": target})
    done = v2a_here("choose", "silent.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "has no rewards, which v2a choose needs" in " ".join(done.stderr.split())
    assert "policy" not in done.stdout
