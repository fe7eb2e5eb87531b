"""`modality.mode=per_source`: one fit per source, joined into one column with the source's label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.experiments.test_plan import experiment as planned
from tests.experiments.test_plan import plan, renewed
from tests.experiments.tiny_experiments import SOURCE, experiment, run
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.columns import read_episode_column
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.store import Artifact, ArtifactStore
from v2a_ray.engine.trainer import Metrics, Progress, silent
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.train.compute import make_stage
from v2a_ray.orchestration.train.work import Work, input_paths
from v2a_ray.stages.modality.fit import COLUMN
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments

PARTS = ["hopper-gravity-0.5-random", "hopper-otdf-morph-random"]
"""The sources of the table's episodes, alternating."""
MIX = SOURCE.replace(source=tuple(PARTS * 3))


def per_source() -> ExperimentConfig:
    config = experiment("v2a", "modality.mode=per_source")
    second = config.sources[0].model_copy(update={"domain": "hopper/otdf-morph"})
    return config.model_copy(update={"sources": [*config.sources, second]})


def test_per_source_encodes_each_source_with_its_own_model(tmp_path: Path) -> None:
    config = per_source()
    done = run(config, tmp_path, MIX)
    column = read_episode_column(done["modality"] / COLUMN, "z", MIX)
    assert column.shape == (6, 2 + 3)
    np.testing.assert_array_equal(column[:, :2], [[1, 0], [0, 1]] * 3)
    for index, name in enumerate(PARTS):
        own = MIX.select(range(index, 6, 2))
        torch.manual_seed(config.upstream_seed)
        model = ModalityModel(11, 3, config.modality)
        model.set_statistics(moments(own))
        learner = ModalityLearner(own, model, config.modality, config.upstream_seed)
        for step in range(config.modality.num_steps):
            learner.update(step)
        np.testing.assert_array_equal(column[index::2, 2:], encode_episodes(model, own, config.modality))
        stored = load_file(done[f"modality/{name}"] / "model.safetensors")
        assert all(torch.equal(stored[key], value) for key, value in model.state_dict().items())
    # The later stages accept the wider z.
    assert np.isfinite(json.loads((done["policy"] / "evaluation.json").read_text())["return_mean"])


def test_source_missing_in_the_mix_is_not_fitted(tmp_path: Path) -> None:
    table = MIX.select([0, 2, 4])
    done = run(per_source(), tmp_path, table)
    assert read_episode_column(done["modality"] / COLUMN, "z", table).shape == (3, 1 + 3)
    assert not list(done[f"modality/{PARTS[1]}"].iterdir())


def test_finished_sources_are_not_fitted_again_after_a_kill(tmp_path: Path) -> None:
    config = per_source()
    nodes, store = make_plan(config), ArtifactStore(tmp_path)

    def compute(name: str, progress: Progress = silent) -> Artifact:
        node, work = nodes[name], Work(config, nodes, nodes[name])
        if node.stage == "source":
            return store.get_or_make("source", node.key, write_mix, {})
        return make_stage(work, input_paths(work, store), store, progress)

    def write_mix(output: Path, _: Path) -> None:
        write_table(MIX, output / "table")

    def killed(step: int, num_steps: int, metrics: Metrics) -> None:
        raise KeyboardInterrupt

    first, second = (f"modality/{name}" for name in PARTS)
    for name in ("source", "rows/source", first):
        compute(name)
    with pytest.raises(KeyboardInterrupt):
        compute(second, killed)
    assert compute(first).cached and not compute(second).cached
    column = compute("modality").path / COLUMN
    assert read_episode_column(column, "z", MIX).shape == (6, 2 + 3)


def test_per_source_plan_has_one_node_per_source() -> None:
    nodes = plan("v2a", "modality.mode=per_source")
    fits = [f"modality/{name}" for name in PARTS]
    assert [name for name in nodes if name.startswith("modality/")] == fits
    assert set(nodes["modality"].inputs) == {"source", "source_rows", *fits}
    assert [nodes[name].part for name in fits] == PARTS and nodes["modality"].part is None
    assert renewed("v2a", "modality.mode=shared") == set()
    before = plan("v2a")
    changed = {name for name, node in before.items() if node.key != nodes[name].key}
    assert changed == {"modality", "advantage", "policy"}
    assert before.keys() == nodes.keys() - set(fits)


@pytest.mark.parametrize(
    ("method", "override", "part"),
    [
        ("v2a_calibrated", "seed=0", "include_target has to be false"),
        ("grouped", "seed=0", "needs modality.mode=shared"),
        ("v2a", "modality.num_workers=2", "num_workers has to be 1"),
    ],
)
def test_per_source_is_refused_where_a_shared_latent_is_needed(method: str, override: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        planned(method, "modality.mode=per_source", override)
