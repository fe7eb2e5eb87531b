"""The plan of an experiment: which artifacts it needs, what each is made from, and under which key.

An artifact is a node; its key hashes the stage, the settings that move its numbers, the keys of its inputs and a seed.
Two experiments that agree on those share the artifact, so a sweep over seeds, lambda and xi fits the modality once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2a_ray.config import (
    AdvantageConfig,
    AlignmentConfig,
    DataSpec,
    ExperimentConfig,
    FeedingConfig,
    FilterConfig,
    ModalityConfig,
    PolicyConfig,
    Settings,
)
from v2a_ray.data.digests import digest_path
from v2a_ray.data.mixture import TARGET_LABEL, collection_requests, mix_sources, resolve, skips
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behaviors import GaussianActor, load_behavior
from v2a_ray.errors import DataError
from v2a_ray.stages.artifacts import stage_key, store_root

# How often a stage reports and saves does not move its numbers, and where it computes moves them as a seed would:
# `device: auto` means another one on every machine, and an artifact has to be found on all of them.
_BOOKKEEPING = {"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"}
_LATER: dict[type[Settings], dict[str, Any]] = {
    ModalityConfig: {
        "encoder": "gru",
        "patience_evaluations": None,
        "min_improvement": 0.05,
        "validation_fraction": 0.1,
        "validation_interval_steps": 100,
        "mode": "shared",
    },
    AdvantageConfig: {"latent": "learned", "expectile": 0.7},
    AlignmentConfig: {
        "contrastive_score": "cosine",
        "noise_std": 1.0,
        "log_ratio_clip": 10.0,
        "block_transitions": 10000,
        "regularization": 0.05,
        "max_iterations": 1000,
        "max_target_transitions": 20000,
        "fit_dynamics_to": "target",
        "density_latent_dim": 16,
        "density_samples": 8,
        "high_value_fraction": 0.5,
    },
    FilterConfig: {"normalization": "batch", "normalize_alignment": False, "weight_threshold": math.log(0.01)},
    PolicyConfig: {
        "num_workers": 1,
        "reward_correction": 0.0,
        "reward_correction_data": "source",
        "density_weight": 0.0,
        "correct_transitions": False,
    },
}
"""Settings that came after the first artifacts, with the value that says what was done before there was a choice. At
that value a setting is no part of a key, so that a new choice renews nothing that was computed without it. The value is
written down here and not taken from the defaults: a default may change, what a key means may not."""
SOURCE = "source"


@dataclass(frozen=True)
class Node:
    """One artifact of a plan.

    Attributes:
        stage: one of `v2a_ray.stages.artifacts.STAGES` but `diagnosis`.
        name: unique in its plan and shown to people; for data the label of the part.
        key: content key.
        inputs: role to name of the node it comes from.
        spec: the data node's specification.
        part: the source that it is about, of a stage that is computed for each source by itself.
    """

    stage: str
    name: str
    key: str
    inputs: dict[str, str] = field(default_factory=dict)
    spec: DataSpec | None = None
    part: str | None = None


def make_plan(config: ExperimentConfig) -> dict[str, Node]:
    """The nodes of an experiment by name, each after its inputs. Raises DataError when a data file is missing.

    Digests of data files are remembered in the experiment's store.
    """
    store = store_root(config.store)
    nodes: dict[str, Node] = {}

    # `rows` are a table in another form, for which the table's own key stands.
    def add(
        stage: str,
        settings: Any,
        inputs: dict[str, str],
        seed: int = 0,
        rows: Mapping[str, str] | None = None,
        part: str | None = None,
    ) -> None:
        keys = {role: nodes[name].key for role, name in inputs.items()}
        name = f"{stage}/{part}" if part else stage
        key = stage_key(stage, settings, keys, seed)
        nodes[name] = Node(stage, name, key, inputs | dict(rows or {}), part=part)

    for name, spec in {TARGET_LABEL: config.target, **{source.label: source for source in mix_sources(config)}}.items():
        # The label is part of the key because it is part of every episode's id.
        content = {"label": name, **_data_content(spec, config, store), **_strict_checks(config)}
        nodes[_data_name(name)] = Node("data", _data_name(name), stage_key("data", content, {}), spec=spec)
    add(
        SOURCE,
        _mix_content(config) | _strict_checks(config),
        {source.label: _data_name(source.label) for source in config.sources},
    )

    tables = {SOURCE: SOURCE, TARGET_LABEL: _data_name(TARGET_LABEL)}
    for role, table in tables.items():
        key = stage_key("rows", {}, {"table": nodes[table].key})
        nodes[f"rows/{role}"] = Node("rows", f"rows/{role}", key, {"table": table})
    source_rows = {"source_rows": "rows/source"}
    common: dict[str, Any] = {"preprocessing": config.preprocessing.model_dump(mode="json")}
    if config.feeding != FeedingConfig():
        common["feeding"] = config.feeding.model_dump(mode="json")
    if config.needs_modality:
        inputs = tables if config.modality.include_target else {SOURCE: SOURCE}
        settings, seed = _moving(config.modality), config.upstream_seed
        if config.modality.mode == "shared":
            add("modality", settings, inputs, seed)
        else:
            for label in (source.label for source in config.sources):
                add("modality", settings | {"part": label}, {SOURCE: SOURCE}, seed, source_rows, part=label)
                inputs |= {f"modality/{label}": f"modality/{label}"}
            add("modality", settings, inputs, seed, source_rows)
    latent = {"modality": "modality"}
    if "advantage" in config.columns:
        inputs = tables | (latent if config.advantage_reads_z else {})
        add("advantage", common | {"advantage": _moving(config.advantage)}, inputs, config.upstream_seed, source_rows)
    if "alignment" in config.columns:
        inputs = tables | (latent if config.alignment.kind == "modality" else {})
        add("alignment", common | {"alignment": _moving(config.alignment)}, inputs, config.upstream_seed, source_rows)
    columns = {name: name for name in config.columns} | (latent if config.groups_by_z else {})
    # Both tables move these, even fitted to one: they set the preprocessing.
    roles = source_rows | {"target_rows": "rows/target"}
    if config.needs_density:
        add("density", common | {"density": _moving(config.density)}, tables, config.upstream_seed, roles)
        columns["density"] = "density"
    if config.needs_dynamics:
        add("dynamics", common | {"dynamics": _moving(config.dynamics)}, tables, config.upstream_seed, roles)
        if config.policy_reads_dynamics:
            columns["dynamics"] = "dynamics"
    if config.needs_correction:
        inputs = tables | {"dynamics": "dynamics"}
        add("correction", common | {"correction": _moving(config.correction)}, inputs, config.upstream_seed, roles)
        columns["correction"] = "correction"
    settings = common | {
        "policy": _moving(config.policy, config.policy.unread_sections),
        "evaluation": config.evaluation.model_dump(mode="json"),
        "domain": parse_domain(config.target.domain).name,
    }
    add("policy", settings, tables | columns, config.seed, roles)
    return nodes


def _data_name(label: str) -> str:
    return f"data/{label}"


def _moving(settings: Settings, unread: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The settings that can move a stage's numbers: not those of bookkeeping, nor those that nothing reads."""
    return _without_later(settings, settings.model_dump(mode="json", exclude=_BOOKKEEPING | unread))


def _without_later(settings: Settings, content: dict[str, Any]) -> dict[str, Any]:
    """`content`, a dump of `settings`, without what `_LATER` names and is at the value given there."""
    left_out = {name for name, value in _LATER.get(type(settings), {}).items() if getattr(settings, name) == value}
    inner = {name: value for name, value in settings if isinstance(value, Settings)}
    return {
        name: _without_later(inner[name], value) if name in inner else value
        for name, value in content.items()
        if name not in left_out
    }


def _mix_content(config: ExperimentConfig) -> dict[str, Any]:
    """What determines the mix beside its sources."""
    if not config.mix.validation_fraction:
        return {}
    return {"validation_fraction": config.mix.validation_fraction, "seed": config.mix.seed}


def _strict_checks(config: ExperimentConfig) -> dict[str, Any]:
    """The checks that must not fire. Data made without them were never held to them."""
    strict = sorted(name for name, severity in config.checks.items() if severity == "error")
    return {"strict_checks": strict} if strict else {}


def _data_content(spec: DataSpec, config: ExperimentConfig, store: Path) -> dict[str, Any]:
    """What determines the transitions of one part: a file's bytes, or policies, domain and seed."""
    domain = parse_domain(spec.domain)
    about: dict[str, Any] = {"domain": domain.name, "behavior": spec.behavior}
    if spec.path is None:
        requests = collection_requests(spec)
        policies = parse_domain(spec.policy_domain or spec.domain)
        about["weights"] = {request.component: weights_digest(policies, request.component) for request in requests}
        return about | {"num_transitions": spec.num_transitions, "noise_std": spec.noise_std, "seed": spec.seed}
    about |= {"num_transitions": spec.num_transitions, "subsample": spec.subsample}
    # What is left at its default is no part of the key, so that settings which did not exist renew nothing.
    if spec.subsample != "first":
        about["seed"] = spec.seed
    if spec.num_episodes is not None:
        about["num_episodes"] = spec.num_episodes
    if spec.replacement:
        about["replacement"] = True
    if not skips(config, spec):
        return about | {"file": digest_path(resolve(spec, config.data_root), store)}
    try:
        digest: str | None = digest_path(resolve(spec, config.data_root), store)
    except DataError:
        digest = None  # Reading it says why, and leaves it out.
    return about | {"file": digest, "on_error": "skip"}


def weights_digest(domain: Domain, component: str) -> str:
    """SHA-256 of a behaviour policy's weights, so that retraining it renews the data."""
    policy = load_behavior(domain, component)
    digest = hashlib.sha256()
    if isinstance(policy, GaussianActor):
        for name, values in sorted(policy.to_tensors().items()):
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()
