"""`gym:ENV_ID` on the command line: what it shows, measures, collects and runs, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.command import CONFIG, v2a, v2a_here

ENVIRONMENT = "gym:InvertedPendulum-v5"
EXPERIMENT = CONFIG | {
    "name": "own",
    "method": "bc",
    "target": {"domain": ENVIRONMENT, "behavior": "random", "num_transitions": 100},
    "sources": [{"domain": f"{ENVIRONMENT}/gravity-0.5", "behavior": "random", "num_transitions": 100}],
}


def write(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump(EXPERIMENT | changes))
    return str(path)


def test_show_names_what_a_shift_changes(tmp_path: Path) -> None:
    done = v2a_here("domains", "show", f"{ENVIRONMENT}/mass:pole-2", cwd=tmp_path)
    shown = json.loads(done.stdout)
    assert (shown["action_low"], shown["action_high"], shown["max_episode_steps"]) == ([-3.0], [3.0], 1000)
    (mass,) = (edit for edit in shown["edits"] if edit["edit"] == "body pole mass")
    assert mass["new"] == [2 * mass["old"][0]]


def test_references_are_given_or_measured_with_a_policy_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "still.py").write_text("def stand(observation):\n    return [4 * observation[1] + observation[3]]\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    command = ("domains", "references", ENVIRONMENT, "--measure", "--expert", "still:stand", "-n", "3")
    done = v2a(*command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    random, expert = yaml.safe_load(done.stdout.splitlines()[-1])["environment"]["references"]
    assert 0 < random < 30 < expert
    assert "none: no normalised score" in v2a_here("domains", "references", ENVIRONMENT, cwd=tmp_path).stdout


def test_check_tells_the_distance_to_stock(tmp_path: Path) -> None:
    done = v2a_here("domains", "check", f"{ENVIRONMENT}/gravity-0.5", f"{ENVIRONMENT}/mass-2", cwd=tmp_path)
    assert done.returncode == 0 and "1 of 1 robots pass, 3 domains" in done.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": EXPERIMENT["target"] | {"domain": "gym:CartPole-v1"}}, "actions are Discrete(2)"),
        ({"target": EXPERIMENT["target"] | {"domain": "gym:no_such_package:Robot"}}, "no_such_package"),
        ({"target": EXPERIMENT["target"] | {"domain": "gym:Pendulum-v1"}}, "(4 observations, 1 actions)"),
        ({"target": EXPERIMENT["target"] | {"domain": "gym:Pendulum-v1/mass-2"}}, "edits a MuJoCo model"),
        ({"target": EXPERIMENT["target"] | {"domain": f"{ENVIRONMENT}/joint-range:hing-0.5"}}, "one of hinge"),
        ({"target": EXPERIMENT["target"] | {"behavior": "medium"}}, "no trained behaviours"),
        ({"target": EXPERIMENT["target"] | {"behavior": "no_such_module:act"}}, "cannot be imported"),
        ({"target": EXPERIMENT["target"] | {"environment": 3}}, "write its settings as KEY: VALUE"),
        (
            {"target": {"domain": "hopper", "environment": {"mass": 1}, "behavior": "random", "num_transitions": 9}},
            "hopper is none",
        ),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    done = v2a_here("run", write(tmp_path / "bad.yaml", **changes), cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


def test_data_of_other_dimensions_are_refused(tmp_path: Path) -> None:
    import numpy as np

    from v2a_ray.data.collection.rolling import collect_episodes
    from v2a_ray.data.table.folder import write_table
    from v2a_ray.domains import parse_domain

    table = collect_episodes(parse_domain("gym:Pendulum-v1"), "random", range(1))
    assert np.isfinite(table.observation).all()
    write_table(table, tmp_path / "pendulum")
    done = v2a_here("data", "convert", "pendulum", "--domain", ENVIRONMENT, "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "has 3 features, gym:InvertedPendulum-v5 has 4" in " ".join(done.stderr.split())


def test_a_run_without_references_has_returns_and_no_score(ray_cluster: None, tmp_path: Path) -> None:
    done = v2a_here("run", write(tmp_path / "own.yaml"), "--run-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unknown (the domain has no reference returns)" in " ".join(done.stdout.split())
    target = json.loads((tmp_path / "out/result.json").read_text())["target"]
    assert target["normalized_score_mean"] is None and target["return_mean"] > 0
    assert len(target["returns"]) == 3
    again = v2a_here("evaluate", "out", "-n", "3", cwd=tmp_path)
    assert again.returncode == 0 and "–" in again.stdout
    exported = v2a_here("evaluate", "out", "-d", "gym:Pendulum-v1", cwd=tmp_path)
    assert exported.returncode == 2 and "cannot act on gym:Pendulum-v1" in " ".join(exported.stderr.split())
