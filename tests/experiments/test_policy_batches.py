"""Which policies are trained as one batch, and that each writes the same files as a separate run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.experiments.tiny_experiments import OURS, experiment, run
from v2a_ray.data.loading import streaming
from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError, DataError, DivergenceError, StorageError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.policy import batched_jobs
from v2a_ray.stages.policy.batched import train_together
from v2a_ray.stages.policy.batched_jobs import fit_policies, make_policy_batches, policy_batch_key


def key(method: str, *overrides: str) -> str | None:
    config = experiment(method, "upstream_seed=0", *overrides)
    return policy_batch_key(config, make_plan(config))


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "seed=3",
        "policy.learning_rate=0.1",
        "policy.discount=0.9",
        "policy.expectile=0.9",
        "policy.temperature=1",
        "policy.target_rate=0.1",
        "policy.reward_correction=0.2",
        "policy.filter.alignment_weight=0.2",
        "policy.filter.keep_fraction=0.25",
        "upstream_seed=1",
        "target.num_transitions=60",
        "alignment.width=16",
        "advantage.conditioning=none",
    ],
)
def test_policies_that_differ_in_seed_data_and_scalars_share_a_batch(override: str) -> None:
    assert key("dvdf", override) == key("dvdf") is not None


@pytest.mark.parametrize(
    "override",
    [
        "policy.num_steps=5",
        "policy.batch_size=16",
        "policy.width=16",
        "policy.data=target",
        "policy.num_threads=2",
        "policy.device=cpu",
        "policy.filter.rule=calibrated",
        "policy.filter.normalization=ranks",
        "policy.filter.weight=one",
        "policy.correct_transitions=true",
        "preprocessing.reward_scale=1",
        "evaluation.num_episodes=2",
        "loading.memory_gib=0.5",
    ],
)
def test_settings_of_shapes_and_evaluation_separate_batches(override: str) -> None:
    assert key("dvdf", override) != key("dvdf")


PACKED = {
    *("v2a", "v2a_residual", "v2a_calibrated", "v2a_ot", "dvdf", "dvdf_ot", "igdf"),
    *("dara", "dara_filter", "srpo", "stc", "dmc_nearest"),
    *("iql", "iql_mixed", "iql_target", "iql_source"),
}
"""Methods that train plain IQL. `otdf` adds a density; `droco` and `grouped` derive from IQL."""


@pytest.mark.parametrize("method", OURS)
def test_learners_other_than_plain_iql_are_not_batched(method: str) -> None:
    assert (key(method) is not None) == (method in PACKED)


def test_policy_with_a_density_is_not_batched() -> None:
    assert key("dvdf", "policy.density_weight=0.1") is None
    assert key("otdf", "policy.density_weight=0") is not None


def test_policy_with_next_value_after_step_is_not_batched() -> None:
    assert key("v2a", "policy.next_value=after_step") is None


@pytest.mark.parametrize(
    ("keys", "largest", "policy_batches"),
    [
        (["a"] * 9, 4, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (["a", "b", "a", None, "b", None], 8, [[0, 2], [1, 4], [3], [5]]),
        (["a", "a"], 1, [[0], [1]]),
        ([], 3, []),
    ],
)
def test_make_policy_batches_by_hand(keys: list[str | None], largest: int, policy_batches: list[list[int]]) -> None:
    assert make_policy_batches(keys, largest) == policy_batches


@given(st.lists(st.sampled_from(["a", "b", None])), st.integers(1, 6))
def test_policy_batches_contain_every_policy_once_and_are_even(keys: list[str | None], largest: int) -> None:
    policy_batches = make_policy_batches(keys, largest)
    assert sorted(number for policy_batch in policy_batches for number in policy_batch) == list(range(len(keys)))
    for key in ("a", "b"):
        sizes = [len(policy_batch) for policy_batch in policy_batches if keys[policy_batch[0]] == key]
        assert max(sizes, default=0) <= largest and max(sizes, default=0) - min(sizes, default=0) <= 1
        assert len(sizes) == -(-keys.count(key) // largest)
    assert all(len({keys[number] for number in policy_batch}) == 1 for policy_batch in policy_batches)
    assert all(len(policy_batch) == 1 for policy_batch in policy_batches if keys[policy_batch[0]] is None)


def jobs_of(configs: list[ExperimentConfig], artifacts: list[dict[str, Path]], folder: Path) -> list[Job]:
    """Policy jobs on the artifacts of each, in separate folders."""
    jobs = []
    for index, (config, folders) in enumerate(zip(configs, artifacts, strict=True)):
        output = folder / "pack" / str(index)
        output.mkdir(parents=True)
        inputs = {role: folders[name] for role, name in make_plan(config)["policy"].inputs.items()}
        jobs.append(Job(config, inputs, output, folder / "work" / str(index)))
    return jobs


OTHERS = {
    "dvdf": [["seed=1", "policy.filter.keep_fraction=0.75"], ["policy.temperature=1"]],
    "iql_mixed": [["seed=1"]],
    "dara": [["seed=1"], ["policy.reward_correction=5"]],
    "srpo": [["seed=1"], ["policy.reward_correction=5"]],
    "stc": [["seed=1"], ["policy.discount=0.9"]],
}
"""Settings in which the other members of a batch differ from the first, by method."""
OTHER_DATA = [["seed=1", "upstream_seed=1"], ["seed=1", "upstream_seed=1", "policy.expectile=0.9"]]


@pytest.mark.parametrize("method", OTHERS)
def test_policy_batch_writes_the_files_of_separate_runs(method: str, tmp_path: Path) -> None:
    assert_batch_equals_separate_runs(method, [[], *OTHERS[method]], tmp_path)


@pytest.mark.parametrize("method", ["v2a", "iql_target"])
def test_policy_batch_on_other_data_writes_the_files_of_separate_runs(method: str, tmp_path: Path) -> None:
    assert_batch_equals_separate_runs(method, [[], *OTHER_DATA, ["target.num_transitions=60"]], tmp_path)


def test_streamed_policies_of_a_batch_are_trained_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
    monkeypatch.setattr(streaming, "OVERHEAD_BYTES", 0)
    memory = f"loading.memory_gib={8000 / 2**30}"
    different = [[memory, "upstream_seed=0", *overrides] for overrides in ([], ["seed=1"])]
    assert_batch_equals_separate_runs("iql_mixed", different, tmp_path, streamed=True)


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1, 2]), (2, [3])])
def test_tables_of_a_batch_fit_in_the_memory_of_one_policy(
    limit: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [experiment("iql_mixed", *overrides) for overrides in ([], *OTHER_DATA)]
    one, other = (run(config, tmp_path / str(index)) for index, config in enumerate(configs[:2]))
    alone = [one, other, other]
    first = jobs_of(configs[:1], alone[:1], tmp_path / "first")[0]
    needed = sum(first.rows(role).num_bytes for role in ("target", "source"))
    memory = f"loading.memory_gib={limit * needed * 1.01 / 2**30}"
    limited = [experiment("iql_mixed", memory, *overrides) for overrides in ([], *OTHER_DATA)]
    together: list[int] = []

    def counted(loops: Sequence[Any], *others: Any) -> list[DivergenceError | None]:
        together.append(len(loops))
        return train_together(loops, *others)

    monkeypatch.setattr(batched_jobs, "train_together", counted)
    assert fit_policies(jobs_of(limited, alone, tmp_path)) == [None] * 3
    # A batch of one is trained alone.
    assert together == [size for size in sizes if size > 1]


def test_what_is_advised_against_too_little_memory_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 200)
    monkeypatch.setattr(streaming, "OVERHEAD_BYTES", 0)
    given = 3000 / 2**30
    little, unlimited = experiment("iql_mixed", f"loading.memory_gib={given}"), experiment("iql_mixed")
    artifacts = [run(unlimited, tmp_path / "alone")]
    (error,) = fit_policies(jobs_of([little], artifacts, tmp_path / "little"))
    assert isinstance(error, ConfigError)
    times = float(re.findall(r"to ([\d.]+) times", error.remedy)[0])
    enough = experiment("iql_mixed", f"loading.memory_gib={given * times}")
    assert fit_policies(jobs_of([enough], artifacts, tmp_path / "enough")) == [None]


def assert_batch_equals_separate_runs(
    method: str, different: list[list[str]], folder: Path, *, streamed: bool = False
) -> None:
    configs = [experiment(method, *overrides) for overrides in different]
    assert len({policy_batch_key(config, make_plan(config)) for config in configs} - {None}) == 1
    alone = [run(config, folder / str(index)) for index, config in enumerate(configs)]
    jobs = jobs_of(configs, alone, folder)
    assert fit_policies(jobs) == [None] * len(jobs)
    for job, folders in zip(jobs, alone, strict=True):
        separate = folders["policy"]
        assert {file.name for file in job.output.iterdir()} == {file.name for file in separate.iterdir()}
        weights, expected = (load_file(folder / "actor.safetensors") for folder in (job.output, separate))
        assert_close(weights, expected, rtol=1e-4, atol=1e-4)
        results, expected_results = (
            json.loads((folder / "evaluation.json").read_text()) for folder in (job.output, separate)
        )
        assert list(results) == list(expected_results)
        assert results["streamed_tables"] == (["target", "source"] if streamed else [])
        assert results["source_transitions_eligible"] == expected_results["source_transitions_eligible"]
        curves, expected_curves = (pq.read_table(folder / "curves.parquet") for folder in (job.output, separate))
        assert curves.schema == expected_curves.schema and curves.num_rows == expected_curves.num_rows
        losses = [table["policy/critic_loss"].to_pylist() for table in (curves, expected_curves)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_diverging_policy_does_not_affect_the_others(tmp_path: Path) -> None:
    configs = [experiment("iql_mixed"), experiment("iql_mixed", "seed=1", "policy.learning_rate=1e30")]
    jobs = jobs_of(configs, [run(configs[0], tmp_path / "alone")] * 2, tmp_path)
    errors = fit_policies(jobs)
    assert errors[0] is None and isinstance(errors[1], DivergenceError)
    assert (jobs[0].output / "evaluation.json").exists() and not list(jobs[1].output.iterdir())


@pytest.mark.parametrize("damaged", [0, 1])
def test_policy_with_damaged_data_does_not_affect_the_others(damaged: int, tmp_path: Path) -> None:
    configs = [experiment("iql_mixed"), experiment("iql_mixed", *OTHER_DATA[0])]
    jobs = jobs_of(configs, [run(config, tmp_path / str(index)) for index, config in enumerate(configs)], tmp_path)
    for file in jobs[damaged].inputs["source_rows"].glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-100])
    errors = fit_policies(jobs)
    assert isinstance(errors[damaged], DataError) and str(jobs[damaged].inputs["source_rows"]) in str(errors[damaged])
    assert errors[1 - damaged] is None and not list(jobs[damaged].output.iterdir())
    assert (jobs[1 - damaged].output / "evaluation.json").exists()


def test_full_disk_ends_all_policies_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = experiment("iql_mixed")
    jobs = jobs_of([config, config], [run(config, tmp_path / "alone")] * 2, tmp_path)

    def full(*_: Any) -> None:
        raise StorageError("no space left on device", where=str(tmp_path))

    monkeypatch.setattr(batched_jobs, "train_together", full)
    with pytest.raises(StorageError, match="no space left"):
        fit_policies(jobs)
