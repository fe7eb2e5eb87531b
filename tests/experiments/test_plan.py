"""Plans of methods: their nodes and inputs, and the artifacts that each setting renews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from v2a_ray.engine.plan import Node, make_plan
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS, method_settings
from v2a_ray.experiments.reading import resolve
from v2a_ray.settings.yaml_files import merge, parse_overrides

MINIMAL: dict[str, Any] = {
    "name": "test",
    "target": {"domain": "hopper/stock", "behavior": "random", "num_transitions": 100},
    "sources": [
        {"domain": "hopper/gravity-0.5", "behavior": "random", "num_transitions": 200},
        {"domain": "hopper/otdf-morph", "behavior": "random", "num_transitions": 300},
    ],
}
DATA = {"data/target", "data/hopper-gravity-0.5-random", "data/hopper-otdf-morph-random"}
COLUMNS = ("modality", "advantage", "alignment")


def experiment(method: str, *overrides: str) -> ExperimentConfig:
    return resolve(merge(MINIMAL | {"method": method}, parse_overrides(overrides)))


def plan(method: str, *overrides: str) -> dict[str, Node]:
    return make_plan(experiment(method, *overrides))


def renewed(method: str, *overrides: str) -> set[str]:
    """The nodes with a key that these overrides change."""
    before, after = plan(method), plan(method, *overrides)
    assert before.keys() == after.keys()
    return {name for name in before if before[name].key != after[name].key}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resolves_and_plans(method: str) -> None:
    config, nodes = experiment(method), plan(method)
    assert config.method == method and METHODS[method].summary
    assert nodes.keys() >= DATA | {"source", "policy"}
    assert list(nodes)[-1] == "policy"
    assert len({node.key for node in nodes.values()}) == len(nodes)
    for position, node in enumerate(nodes.values()):
        assert set(node.inputs.values()) <= set(list(nodes)[:position])  # each after its inputs
    for name in ("advantage", "alignment"):
        assert (name in nodes) == (getattr(config, name).kind != "none")
    # Some node reads every computed column.
    read = {name for node in nodes.values() for name in node.inputs.values()}
    assert read == nodes.keys() - {"policy"}


@pytest.mark.parametrize(
    ("method", "columns"),
    [
        ("bc", set()),
        ("iql", set()),
        ("iql_target", set()),
        ("iql_source", set()),
        ("iql_mixed", set()),
        ("bc_target", set()),
        ("td3_bc", set()),
        ("awac_source", set()),
        ("igdf", {"alignment"}),
        ("dvdf", {"advantage", "alignment"}),
        ("v2a", {"modality", "advantage", "alignment"}),
        ("v2a_calibrated", {"modality", "advantage", "alignment"}),
    ],
)
def test_methods_compute_the_columns_they_need(method: str, columns: set[str]) -> None:
    assert set(plan(method)) & set(COLUMNS) == columns


def test_methods_have_the_published_constants() -> None:
    v2a, dvdf, igdf = (experiment(method) for method in ("v2a", "dvdf", "igdf"))
    for config, fraction, weight, rule in (
        (v2a, 0.5, 0.6, "exp_alignment"),
        (dvdf, 0.5, 0.7, "exp_alignment"),
        (igdf, 0.75, 1.0, "exp_alignment"),
    ):
        chosen = config.policy.filter
        assert (chosen.rule, chosen.keep_fraction, chosen.alignment_weight) == ("top_fraction", fraction, weight)
        assert chosen.weight == rule and config.alignment.kind == "contrastive"
    assert v2a.advantage.conditioning == "modality" and dvdf.advantage.conditioning == "none"
    assert experiment("iql_target").policy.data == "target" and experiment("bc_source").policy.learner == "bc"


def test_stage_inputs_in_the_plan() -> None:
    nodes = plan("v2a")
    assert nodes["modality"].inputs == {"source": "source"}
    tables = {"source": "source", "target": "data/target", "source_rows": "rows/source"}
    assert nodes["advantage"].inputs == tables | {"modality": "modality"}
    assert nodes["alignment"].inputs == tables
    assert nodes["policy"].inputs == tables | {
        "target_rows": "rows/target",
        "advantage": "advantage",
        "alignment": "alignment",
    }
    assert plan("v2a_calibrated")["alignment"].inputs == tables | {"modality": "modality"}


@pytest.mark.parametrize(
    ("override", "nodes"),
    [
        ("seed=1", {*COLUMNS, "policy"}),
        # A sweep over lambda and xi computes all upstream stages once.
        ("policy.filter.alignment_weight=0.1", {"policy"}),
        ("policy.filter.keep_fraction=0.9", {"policy"}),
        ("policy.num_steps=7", {"policy"}),
        ("evaluation.num_episodes=3", {"policy"}),
        ("upstream_seed=1", {*COLUMNS, "policy"}),
        ("modality.latent_dim=4", {"modality", "advantage", "policy"}),
        ("modality.encoder=gru", {"modality", "advantage", "policy"}),
        ("modality.patience_evaluations=3", {"modality", "advantage", "policy"}),
        ("modality.optimization=em", {"modality", "advantage", "policy"}),
        ("advantage.alpha=0.5", {"advantage", "policy"}),
        ("alignment.num_steps=5", {"alignment", "policy"}),
        ("preprocessing.reward_scale=1", {"advantage", "alignment", "policy"}),
        ("loading.memory_gib=1", {"advantage", "alignment", "policy"}),
        ("target.seed=9", {"data/target", "rows/target", "advantage", "alignment", "policy"}),
        ("target.num_transitions=50", {"data/target", "rows/target", "advantage", "alignment", "policy"}),
        ("sources.0.noise_std=0.5", {"data/hopper-gravity-0.5-random", "source", "rows/source", *COLUMNS, "policy"}),
        # Settings of reports and folders change no number.
        ("name=other", set()),
        ("store=/elsewhere", set()),
        ("policy.checkpoint_interval_steps=5", set()),
        ("policy.log_interval_steps=5", set()),
        ("modality.checkpoint_interval_steps=5", set()),
        ("modality.device=cpu", set()),
        ("advantage.device=cuda", set()),
        ("alignment.device=cpu", set()),
        ("policy.device=cuda", set()),
        ("modality.log_interval_steps=5", set()),
        ("advantage.log_interval_steps=5", set()),
        ("alignment.checkpoint_interval_steps=5", set()),
        # Another spelling of the same domain.
        ("target.domain=hopper/stock@d4rl", set()),
        ("target.domain=hopper", set()),
    ],
)
def test_setting_renews_exactly_the_artifacts_it_changes(override: str, nodes: set[str]) -> None:
    assert renewed("v2a", override) == nodes


GRU = {
    "encoder": "gru",
    "optimization": "em",
    "encoder_width": 256,
    "decoder_width": 256,
    "learning_rate": 3e-4,
    "crop_steps": 200,
    "num_steps": 2500,
    "patience_evaluations": None,
}
"""The published modality, except for its size."""


def with_modality(settings: dict[str, Any]) -> dict[str, Node]:
    return make_plan(resolve(merge(MINIMAL | {"method": "v2a"}, {"modality": settings})))


def test_modality_key_contains_all_settings_that_change_it() -> None:
    changes: list[dict[str, Any]] = [{}, {"encoder": "pooled"}, {"patience_evaluations": 2}]
    changes.append(changes[1] | changes[2])
    assert len({with_modality(GRU | change)["modality"].key for change in changes}) == len(changes)


def test_learner_settings_renew_only_the_policy() -> None:
    assert renewed("td3_bc", "policy.q_weight=1") == {"policy"}
    assert renewed("awac", "policy.temperature=2") == {"policy"}


def test_seeds_share_upstream_artifacts_with_equal_upstream_seed() -> None:
    shared, other = plan("v2a", "upstream_seed=0"), plan("v2a", "upstream_seed=0", "seed=1")
    assert {name for name in shared if shared[name].key != other[name].key} == {"policy"}


def test_target_models_are_shared_by_a_sweep() -> None:
    assert renewed("stc", "policy.temperature=0.1") == {"policy"}
    assert renewed("stc", "correction.width=8") == {"correction", "policy"}
    assert renewed("stc", "dynamics.num_members=2") == {"dynamics", "correction", "policy"}
    assert {"dynamics", "correction"}.isdisjoint(plan("stc", "policy.data=target"))
    assert renewed("droco", "policy.penalty_weight=2") == {"policy"}
    assert "dynamics" not in plan("droco", "policy.data=target")
    assert plan("droco")["dynamics"].key == plan("stc")["dynamics"].key
    assert renewed("srpo", "policy.reward_correction_data=source") == {"policy"}
    assert renewed("srpo", "alignment.high_value_fraction=0.2") == {"alignment", "policy"}
    # Corrected transitions can be filtered too.
    assert plan("stc")["correction"].key == plan("igdf", "policy.correct_transitions=true")["correction"].key


def test_methods_share_common_artifacts() -> None:
    v2a, dvdf, igdf, iql = (plan(method) for method in ("v2a", "dvdf", "igdf", "iql"))
    for name in (*DATA, "source"):
        assert v2a[name].key == dvdf[name].key == igdf[name].key == iql[name].key
    assert v2a["alignment"].key == dvdf["alignment"].key == igdf["alignment"].key
    assert v2a["advantage"].key != dvdf["advantage"].key
    assert len({nodes["policy"].key for nodes in (v2a, dvdf, igdf, iql)}) == 4
    # A method that only names a setting shares its artifacts.
    assert plan("iql_mixed")["policy"].key == iql["policy"].key
    assert plan("iql_target")["policy"].key == plan("iql", "policy.data=target")["policy"].key


def test_data_file_key_depends_on_its_content(tmp_path: Path) -> None:
    file = tmp_path / "data.hdf5"
    file.write_bytes(b"one")
    changes = [f"data_root={tmp_path}", "target.path=data.hdf5"]
    first = plan("iql", *changes)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "copy.hdf5").write_bytes(b"one")
    second = plan("iql", f"data_root={moved}", "target.path=copy.hdf5")
    assert first["policy"].key == second["policy"].key
    file.write_bytes(b"two")
    third = plan("iql", *changes)
    assert {name for name in first if first[name].key != third[name].key} == {"data/target", "rows/target", "policy"}
    file.unlink()
    with pytest.raises(DataError, match=r"data\.hdf5: no such file\n  try: .*data_root"):
        plan("iql", *changes)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'v2b'\n  try: did you mean v2a"):
        method_settings("v2b")


def test_no_method_shares_mutable_settings_with_the_registry() -> None:
    before = repr(METHODS)
    experiment("v2a", "policy.filter.keep_fraction=0.9", "alignment.kind=residual")
    assert repr(METHODS) == before


def test_source_named_target_is_refused() -> None:
    """A source named `target` would share the target's node, and with it its data."""
    with pytest.raises(ConfigError, match="target"):
        experiment("iql", "sources.0.name=target")
