"""Generates the table of methods from their settings: the components that each method combines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from v2a_ray.engine.keys import BOOKKEEPING
from v2a_ray.engine.stage import needed_stages
from v2a_ray.experiments.experiment import ExperimentConfig, default_of, method_config
from v2a_ray.experiments.methods import METHODS, method_settings
from v2a_ray.experiments.plugins import load_installed
from v2a_ray.settings.base import leaves
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.policy.stage import filtered_columns

NONE = "none"
_SHOWN = {
    "policy.learner",
    "policy.data",
    "policy.filter.rule",
    "policy.filter.keep_fraction",
    "policy.filter.alignment_weight",
    "policy.filter.weight",
    "advantage.kind",
    "advantage.conditioning",
    "alignment.kind",
}
"""Settings with their own column; a method's other settings are in the column `extra`."""

_BOOKKEEPING = ("num_threads", *BOOKKEEPING)


@dataclass(frozen=True)
class Combination:
    """One row of the table of methods."""

    method: str
    origin: str
    learner: str
    data: str
    alignment: str
    value: str
    filter: str
    weight: str
    extra: str

    @classmethod
    def headings(cls) -> list[str]:
        """Names of the columns."""
        return [field.name for field in fields(cls)]

    def cells(self) -> list[str]:
        """Cells of the row."""
        return [str(getattr(self, name)) for name in self.headings()]


def combination(name: str) -> Combination:
    """The row of a method. Raises ConfigError for an unknown name."""
    config = method_config(name)
    policy, columns = config.policy, filtered_columns(config)
    return Combination(
        method=name,
        origin=METHODS[name].origin or ("published" if METHODS[name].published else "ours"),
        learner=policy.learner,
        data=policy.data,
        alignment=config.alignment.kind if "alignment" in columns else NONE,
        value=_value(config) if "advantage" in columns else NONE,
        filter=_filter(policy, columns),
        weight=NONE if policy.filter.weight == "one" else policy.filter.weight.replace("_", " "),
        extra=", ".join(f"{key}={value}" for key, value in changes(name) if key not in _SHOWN) or NONE,
    )


def combinations() -> list[Combination]:
    """The rows of all methods, including those of plugins."""
    load_installed()
    return [combination(name) for name in METHODS]


def changes(name: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting that a method changes from its default."""
    config = method_config(name)
    for key, value in leaves(method_settings(name)).items():
        if value != default_of(config, key):
            yield key, value


def effective_settings(name: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting that changes a method's numbers, including defaults, without the data."""
    config = method_config(name)
    used = {"preprocessing", *(stage.name for stage in needed_stages(config))}
    for key, value in leaves({key: value for key, value in config.model_dump().items() if key in used}).items():
        if not key.endswith(_BOOKKEEPING):
            yield key, value


def markdown() -> str:
    """The table of all methods in Markdown."""
    headings = Combination.headings()
    rows = [headings, ["---"] * len(headings), *(row.cells() for row in combinations())]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _value(config: ExperimentConfig) -> str:
    return f"{config.advantage.kind} " + ("A(s, a, z)" if config.advantage.conditioning == "modality" else "A(s, a)")


def _filter(policy: PolicyConfig, columns: list[str]) -> str:
    rule = policy.filter
    if rule.rule == "none":
        return NONE
    weighs = f", λ {rule.alignment_weight:g}" if "advantage" in columns else ""
    return f"{rule.rule.replace('_', ' ')}, ξ {rule.keep_fraction:g}{weighs}"
