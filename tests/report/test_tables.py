"""Reports of sweeps: tables of methods over tasks, and learning curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest

from v2a_ray.evaluation.interval import interquartile_mean, mean_interval, spread, with_spread
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.report.curves import SCORE, plot_cells
from v2a_ray.report.result_tables import TrialResult, cells_markdown

PART = {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 10}
CONFIG = ExperimentConfig.model_validate({"name": "test", "target": PART, "sources": [PART]})


def trial(task: str, method: str, seed: int, score: float | None) -> TrialResult:
    evaluation = {} if score is None else {"normalized_score_mean": score}
    status = "failed: diverged" if score is None else "finished"
    return TrialResult(
        {"mix": task, "method": method, "seed": str(seed)}, CONFIG, evaluation, 1.0, status, {}, curves_file=None
    )


def test_interquartile_mean_by_hand() -> None:
    # Eight values in order: 0 1 2 3 | 4 5 6 100; the middle four are 2 3 4 5.
    middle, low, high = interquartile_mean([np.array([0.0, 4.0, 3.0, 100.0]), np.array([1.0, 2.0, 5.0, 6.0])])
    assert middle == 3.5
    assert low < 3.5 < high < 100


def test_bootstrap_resamples_seeds_inside_tasks() -> None:
    # Scores differ only between tasks, so no resample can change the mean.
    assert interquartile_mean([np.zeros(3), np.full(3, 50.0)]) == (25.0, 25.0, 25.0)


@pytest.mark.parametrize("second", [[5.0], [5.0, 7.0]])
def test_one_seed_has_no_spread_and_two_have_no_interval(second: list[float]) -> None:
    middle, low, high = interquartile_mean([np.array([3.0, 3.0, 3.0]), np.array(second)])
    assert middle == np.mean([3.0, 3.0] if len(second) == 1 else [3.0, 3.0, 5.0]) and np.isnan([low, high]).all()
    assert np.isnan(mean_interval(np.array(second))).all()
    assert not np.isnan(mean_interval(np.array([5.0, 7.0, 9.0]))).any()


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 3.0]) == pytest.approx(2**0.5) and np.isnan(spread([1.0]))
    assert with_spread([1.0, 3.0], 2) == "2.00 ± 1.41" and with_spread([1.0], 1) == "1.0"


def test_method_without_a_score_in_a_task_has_no_aggregate() -> None:
    results = [trial(task, "iql", seed, 10.0 * seed) for task in ("near", "far") for seed in (1, 2)]
    results += [trial("near", "v2a", 1, 20.0), trial("near", "v2a", 2, None), trial("far", "v2a", 1, None)]
    lines = cells_markdown(results).splitlines()
    assert lines[0] == "| method | near | far | interquartile mean [95 %] |"
    assert lines[2].startswith("| iql | 15.0 ± 7.1 (n=2) | 15.0 ± 7.1 (n=2) | 15.0 |")
    assert lines[3] == "| v2a | 20.0 (n=1), 1 failed | –, 1 failed | – |"


def test_labels_are_escaped_in_table_cells() -> None:
    lines = cells_markdown([trial("wind | <b>strong\nnow", "iql|mine", seed, 1.0) for seed in (1, 2)]).splitlines()
    assert lines[0] == "| method | wind \\| &lt;b>strong now | interquartile mean [95 %] |"
    assert lines[2].startswith("| iql\\|mine | 1.0 ± 0.0 (n=2) |") and len(lines) == 3


def test_table_notes_seeds_that_share_upstream_stages() -> None:
    own, shared = (
        [
            TrialResult({"seed": str(seed)}, experiment(seed, upstream), {}, None, "not finished", {}, None)
            for seed, upstream in enumerate(upstreams)
        ]
        for upstreams in ([0, 1], [0, 0])
    )
    assert "All seeds share" in cells_markdown(shared) and "upstream_seed=0" in cells_markdown(shared)
    assert "upstream" not in cells_markdown(own)
    # The note names only the method whose seeds share upstream stages; methods without upstream stages get none.
    both = [*own, *(replace(result, labels={**result.labels, "method": "mine"}) for result in shared)]
    assert "All seeds of mine share" in cells_markdown(both)
    # Tasks in which seeds do not share upstream stages get no note either.
    far = [replace(result, labels={**result.labels, "task": "far", "method": "mine"}) for result in own]
    near = [replace(result, labels={**result.labels, "task": "near", "method": "mine"}) for result in shared]
    assert "All seeds of mine in near share" in cells_markdown([*near, *far])
    mixed = ExperimentConfig.model_validate({"name": "test", "method": "iql_mixed", "target": PART, "sources": [PART]})
    alone = [
        replace(result, config=mixed.model_copy(update={"seed": result.config.seed, "upstream_seed": 0}))
        for result in shared
    ]
    assert "upstream" not in cells_markdown(alone)


def experiment(seed: int, upstream_seed: int) -> ExperimentConfig:
    return CONFIG.model_copy(update={"seed": seed, "upstream_seed": upstream_seed})


@pytest.mark.parametrize("num_methods", [2, 25])
def test_curves_of_many_methods_keep_their_panel(num_methods: int, tmp_path: Path) -> None:
    """In an earlier version, the legend of many methods covered the whole plot."""
    curve = pa.table({"step": [1, 2], SCORE: [10.0, 20.0]})
    plot_cells({"task": {f"method {index}": [curve] * 3 for index in range(num_methods)}}, tmp_path / "c.png", "test")
    picture = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    # The panel's frame is the longest dark vertical line.
    dark = (picture < 0.2).all(axis=2)
    assert dark.sum(axis=0).max() > 300
