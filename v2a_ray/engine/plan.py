"""The plan of an experiment: the artifacts that it needs, with their inputs and keys.

An artifact is a node; its key hashes the stage, the settings that move its numbers, the keys of its inputs and a seed.
Two experiments that agree on those share the artifact, so a sweep over seeds, lambda and xi fits the modality once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2a_ray.data.config import TARGET_LABEL, DataSpec
from v2a_ray.data.formats.digests import digest_path
from v2a_ray.data.formats.known_formats import plugin_modules
from v2a_ray.data.mixing.mixture import collection_requests, mix_sources, resolve, skips
from v2a_ray.data.rewards import identity
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behaviors import GaussianActor, load_behavior
from v2a_ray.domains.own.behavior import FunctionPolicy, OnnxPolicy
from v2a_ray.engine.keys import plugin_content
from v2a_ray.engine.stage import SOURCE, TABLES, needed_stages
from v2a_ray.engine.store import stage_key
from v2a_ray.engine.stores import open_store
from v2a_ray.errors import DataError
from v2a_ray.experiments.experiment import ExperimentConfig


@dataclass(frozen=True)
class Node:
    """One artifact of a plan.

    Attributes:
        stage: a name of `v2a_ray.engine.stage.artifact_kinds` but `diagnosis`.
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


def make_plan(config: ExperimentConfig, tables: Mapping[str, Node] | None = None) -> dict[str, Node]:
    """The nodes of an experiment by name, each after its inputs. Raises DataError when a data file is missing.

    `tables` are those of `plan_tables` for an experiment on the same data.
    """
    nodes = dict(tables if tables is not None else plan_tables(config))
    stand_ins = _stand_ins(config)
    for stage in needed_stages(config):
        for request in stage.requests(config):
            made_from, rows = (
                {role: stand_ins.get(name, name) for role, name in named.items()}
                for named in (request.inputs, request.rows)
            )
            keys = {role: nodes[name].key for role, name in made_from.items()}
            name = f"{stage.name}/{request.part}" if request.part else stage.name
            key = stage_key(stage.name, request.settings, keys, stage.seed(config))
            # `rows` are a table in another form, for which the table's own key stands.
            inputs = {**made_from, **rows}
            nodes[name] = Node(stage.name, name, key, inputs, part=request.part)
    return nodes


def plan_tables(config: ExperimentConfig) -> dict[str, Node]:
    """The nodes of an experiment's tables: its data, their mix, and the rows of both. Raises DataError as `make_plan`.

    Only `ExperimentData`, and `offline` for a target without a simulator, determine them. Digests of data files are
    remembered in the experiment's store.
    """
    store = open_store(config.store).root
    nodes: dict[str, Node] = {}

    for name, spec in {TARGET_LABEL: config.target, **{source.label: source for source in mix_sources(config)}}.items():
        # The label is part of the key because it is part of every episode's id.
        held_out = _held_out(config) if name == TARGET_LABEL else {}
        content = {"label": name, **_data_content(spec, config, store), **_strict_checks(config), **held_out}
        nodes[_data_name(name)] = Node("data", _data_name(name), stage_key("data", content, {}), spec=spec)
    if config.sources:
        parts = {source.label: _data_name(source.label) for source in config.sources}
        content = _mix_content(config) | _strict_checks(config)
        key = stage_key(SOURCE, content, {label: nodes[name].key for label, name in parts.items()})
        nodes[SOURCE] = Node(SOURCE, SOURCE, key, parts)
    stand_ins = _stand_ins(config)
    for role, table in TABLES.items():
        if role in stand_ins:
            continue
        key = stage_key("rows", {}, {"table": nodes[table].key})
        nodes[f"rows/{role}"] = Node("rows", f"rows/{role}", key, {"table": table})
    return nodes


def _stand_ins(config: ExperimentConfig) -> dict[str, str]:
    """Without sources the target's table stands for theirs, of which a method that needs none draws nothing."""
    return {} if config.sources else {SOURCE: TABLES[TARGET_LABEL], f"rows/{SOURCE}": f"rows/{TARGET_LABEL}"}


def mix_key(plan: Mapping[str, Node]) -> str:
    """The key of the combined source table; empty without sources."""
    return plan[SOURCE].key if SOURCE in plan else ""


def _data_name(label: str) -> str:
    return f"data/{label}"


def _mix_content(config: ExperimentConfig) -> dict[str, Any]:
    """Key content of the mix besides its sources."""
    if not config.mix.validation_fraction:
        return {}
    return {"validation_fraction": config.mix.validation_fraction, "seed": config.mix.seed}


def _held_out(config: ExperimentConfig) -> dict[str, Any]:
    """What determines the episodes of the target that no stage sees."""
    if not config.is_offline:
        return {}
    return {"held_out": config.offline.model_dump(include={"held_out_fraction", "seed"})}


def _strict_checks(config: ExperimentConfig) -> dict[str, Any]:
    """The checks that must not fire; they are part of the key, because other data were not checked by them."""
    strict = sorted(name for name, severity in config.checks.items() if severity == "error")
    return {"strict_checks": strict} if strict else {}


def _data_content(spec: DataSpec, config: ExperimentConfig, store: Path) -> dict[str, Any]:
    """Key content of one part of the data: a file's bytes, or policies, domain and seed."""
    domain = parse_domain(spec.domain)
    about: dict[str, Any] = {"domain": domain.name, "behavior": spec.behavior}
    if spec.path is None:
        about["domain"] = domain.identity
    for name in ("observation_map", "action_map"):
        if (entries := getattr(spec, name, None)) is not None:
            about[name] = entries
    if spec.path is None:
        requests = collection_requests(spec)
        policies = parse_domain(spec.policy_domain or spec.domain)
        about["weights"] = {request.component: weights_digest(policies, request.component) for request in requests}
        return about | {"num_transitions": spec.num_transitions, "noise_std": spec.noise_std, "seed": spec.seed}
    about |= {"num_transitions": spec.num_transitions, "subsample": spec.subsample}
    # Settings at their default are not part of the key, so that new settings do not renew existing artifacts.
    if spec.subsample != "first":
        about["seed"] = spec.seed
    if spec.num_episodes is not None:
        about["num_episodes"] = spec.num_episodes
    if spec.replacement:
        about["replacement"] = True
    if spec.columns is not None:
        about["columns"] = spec.columns.model_dump(mode="json", exclude_none=True)
    if spec.action_bounds is not None:
        about["action_bounds"] = spec.action_bounds
    if spec.reward is not None:
        about["reward"] = identity(spec.reward)
    if skips(config, spec):
        about["on_error"] = "skip"
    try:
        location = resolve(spec, config.data_root)
        about["file"] = digest_path(location, store)
        if modules := plugin_modules(location, with_columns=spec.columns is not None):
            about["format"] = [plugin_content(module) for module in modules]
    except DataError:
        if not skips(config, spec):
            raise
        about["file"] = None  # Reading it will report the reason and skip it.
    return about


def weights_digest(domain: Domain, component: str) -> str:
    """SHA-256 of a behaviour policy's weights, so that retraining it renews the data."""
    policy = load_behavior(domain, component)
    if isinstance(policy, FunctionPolicy | OnnxPolicy):
        return policy.digest()
    digest = hashlib.sha256()
    if isinstance(policy, GaussianActor):
        for name, values in sorted(policy.to_tensors().items()):
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()
