"""Sources of robots with other dimensions: padded, chosen from, or mapped by a matrix, and refused without a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.command import v2a_here
from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.mixing.dimension_maps import mapped
from v2a_ray.data.table.folder import read_table_folder, write_table
from v2a_ray.domains import parse_domain
from v2a_ray.engine.plan import make_plan
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.orchestration.train.run import run_experiment

SOURCE, TARGET = "gym:InvertedDoublePendulum-v5", "gym:InvertedPendulum-v5"  # 9 and 1, 4 and 1
MATRIX = [[1.0] + [0.0] * 8, [0.0, 0.5, 0.5] + [0.0] * 6, [0.0] * 5 + [2.0, 0.0, 0.0, 0.0], [0.0] * 9]
EXPERIMENT: dict[str, Any] = {
    "name": "mapped",
    "method": "bc_mixed",
    "target": {"domain": TARGET, "behavior": "random", "num_transitions": 40},
    "sources": [{"domain": SOURCE, "path": "source", "behavior": "random", "observation_map": [0, 1, None, 5]}],
    "policy": {"num_steps": 3, "width": 8},
    "evaluation": {"num_episodes": 1, "interval_steps": 0},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    domain = parse_domain(SOURCE)
    write_table(collect_episodes(domain, "random", range(4), noise_std=0.0), folder / "source", robot=domain.robot)
    return folder


def written(folder: Path, **source: Any) -> Path:
    content = {**EXPERIMENT, "data_root": str(folder), "store": str(folder / "store")}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(content | {"sources": [EXPERIMENT["sources"][0] | source]}))
    return path


def test_every_number_of_the_target_is_the_one_that_stands_for_it(workspace: Path) -> None:
    table = read_table_folder(workspace / "source")
    spec = SourceSpec(domain=SOURCE, path="source", observation_map=[8, None, 0], action_map=[None, 0])
    found = mapped(table, spec)
    assert np.array_equal(found.observation[:, [0, 2]], table.observation[:, [8, 0]])
    assert np.array_equal(found.next_observation[:, [0, 2]], table.next_observation[:, [8, 0]])
    assert not found.observation[:, 1].any() and not found.action[:, 0].any()
    assert np.array_equal(found.action[:, 1:], table.action)
    by_matrix = mapped(table, SourceSpec(domain=SOURCE, path="source", observation_map=MATRIX))
    assert np.allclose(by_matrix.observation, table.observation @ np.array(MATRIX).T)
    assert np.array_equal(found.reward, table.reward) and np.array_equal(found.offsets, table.offsets)


def test_a_run_trains_on_mapped_sources(workspace: Path, ray_cluster: None) -> None:
    table = read_table_folder(workspace / "source")
    folders = []
    for number, entries in enumerate(([0, 1, None, 5], MATRIX)):
        config = load_experiment(written(workspace, observation_map=entries))
        result = run_experiment(config, make_plan(config), workspace / f"run{number}")
        folders.append(next(stage["artifact"] for stage in result["stages"] if stage["name"] == "source"))
        trained = read_table_folder(Path(folders[-1]) / "table")
        expected = mapped(table, config.sources[0])
        assert sorted(map(tuple, trained.observation)) == sorted(map(tuple, expected.observation))
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"observation_map": None}, "9 observations, 1 actions"),
        ({"observation_map": None}, "observation_map and action_map"),
        ({"observation_map": [0, 1, 2]}, "maps to 3 observations, and the target has 4"),
        ({"observation_map": [0, 1, 2, 9]}, "entry 3 is 9, and the source has 9 observations"),
        ({"observation_map": [[1.0, 2.0]] * 4}, "row 0 has 2 numbers, and the source has 9 observations"),
        ({"observation_map": [-1, 0, 0, 0]}, "observation_map"),
        ({"observation_map": None, "action_map": [0]}, "the source has 9 observations, the target 4"),
    ],
)
def test_what_does_not_lead_to_the_target_is_refused(workspace: Path, source: dict[str, Any], said: str) -> None:
    done = v2a_here("run", str(written(workspace, **source)), cwd=workspace)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
