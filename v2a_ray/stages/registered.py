"""The trained stages, each declared once. Plans, dispatch, devices, estimates and tables of methods loop over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from v2a_ray.data.config import DataSpec
from v2a_ray.engine.keys import moving
from v2a_ray.engine.rates import Tables, Work, data_works, robot_of
from v2a_ray.engine.stage import (
    BOTH_ROWS,
    SOURCE,
    SOURCE_ROWS,
    TABLES,
    Request,
    Stage,
    imported,
    layers,
    prepared,
)
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.settings.base import DeviceName
from v2a_ray.stages.policy.config import PolicyConfig

if TYPE_CHECKING:
    from v2a_ray.engine.context import Job

FITS_ROWS = "v2a_ray.stages.source_columns:fit_rows"
LATENT = {"modality": "modality"}


class ModalityStage(Stage):
    """z of every source episode, by one encoder or by one for each source."""

    name = "modality"
    fits = "v2a_ray.stages.modality.fit:fit_modality"
    fits_parallel = "v2a_ray.orchestration.train.modality_workers:fit_modality_parallel"

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return config.needs_modality

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """See `Stage`; encoders of single sources come before the column that joins theirs."""
        inputs, settings = TABLES if config.modality.include_target else {SOURCE: SOURCE}, moving(config.modality)
        if config.modality.mode == "shared":
            return [Request(inputs, settings)]
        labels = [source.label for source in config.sources]
        own = [Request({SOURCE: SOURCE}, settings | {"part": label}, SOURCE_ROWS, label) for label in labels]
        fitted = {f"modality/{label}": f"modality/{label}" for label in labels}
        return [*own, Request(inputs | fitted, settings, SOURCE_ROWS)]

    def works(self, config: ExperimentConfig, tables: Tables) -> list[Work]:
        """Three gates of a GRU, or the layer between two hidden ones, and an ensemble of decoders, at every time."""
        section = config.modality
        encoder = (3 if section.encoder == "gru" else 1) * section.encoder_width**2
        decoders = section.num_decoders * section.decoder_layers * section.decoder_width**2
        # An episode that is not cropped has a thousand steps at most.
        steps = section.crop_steps or 1000
        kind = f"modality {section.optimization}" + ("" if section.encoder == "gru" else f" {section.encoder}")
        return [Work(kind, section.num_steps, float(section.batch_size * steps * (encoder + decoders)))]


class AdvantageStage(Stage):
    """A(s, a) or A(s, a, z) of every source transition."""

    name = "advantage"
    fits = "v2a_ray.stages.source_columns:fit_advantage"
    rows = SOURCE_ROWS

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return "advantage" in config.columns

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | (LATENT if config.advantage_reads_z else {})


class AlignmentStage(Stage):
    """h of every source transition."""

    name = "alignment"
    fits = "v2a_ray.stages.source_columns:fit_alignment"
    rows = SOURCE_ROWS

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return "alignment" in config.columns

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | (LATENT if config.alignment.kind == "modality" else {})

    def works(self, config: ExperimentConfig, tables: Tables) -> list[Work] | None:
        """See `Stage`."""
        section, source, target = config.alignment, tables.source, tables.target
        kind = f"alignment {section.kind}"
        if section.kind == "modality":
            return None if source is None else [Work(kind, source)]
        if section.kind == "optimal_transport":
            if source is None or target is None:
                return None
            return [Work(kind, source * min(target, section.max_target_transitions))]
        members = section.num_members if section.kind in ("residual", "dynamics_density") else 1
        return [Work(kind, section.num_steps, float(section.batch_size * section.width**2 * members))]


class DensityStage(Stage):
    """The density of a behaviour, to whose support a policy is held."""

    name = "density"
    fits = "v2a_ray.stages.support.fit:fit_density"

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return config.needs_density


class DynamicsStage(Stage):
    """Models of the target's dynamics."""

    name = "dynamics"
    fits = "v2a_ray.stages.support.fit:fit_dynamics"

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return config.needs_dynamics


class CorrectionStage(Stage):
    """Action and reward that a source transition would have had in the target."""

    name = "correction"
    fits = "v2a_ray.stages.support.fit:fit_correction"

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return config.needs_correction

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | {"dynamics": "dynamics"}


class PolicyStage(Stage):
    """The policy and its evaluation in the target."""

    name = "policy"
    fits = "v2a_ray.stages.policy.training:fit_policy"
    fits_parallel = "v2a_ray.orchestration.train.policy_workers:fit_policy_parallel"
    fits_rllib = "v2a_ray.orchestration.rllib.baselines:fit_rllib_policy"

    def needed(self, config: ExperimentConfig) -> bool:
        """See `Stage`."""
        return True

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """See `Stage`."""
        read = {name: name for name in config.columns} | (LATENT if config.groups_by_z else {})
        models = {
            "density": config.needs_density,
            "dynamics": config.policy_reads_dynamics,
            "correction": config.needs_correction,
        }
        read |= {name: name for name, wanted in models.items() if wanted}
        from v2a_ray.domains import parse_domain

        settings = prepared(config) | {
            "policy": moving(config.policy, config.policy.unread_sections),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "domain": parse_domain(config.target.domain).name,
        }
        return [Request(TABLES | read, settings, BOTH_ROWS)]

    def works(self, config: ExperimentConfig, tables: Tables) -> list[Work]:
        """The steps, and the evaluations if no episode ends early."""
        policy, evaluation = config.policy, config.evaluation
        times = math.ceil(policy.num_steps / evaluation.interval_steps) if evaluation.interval_steps else 1
        from v2a_ray.domains import parse_domain

        robot = parse_domain(config.target.domain).robot_spec
        # A policy that falls ends its episodes sooner; what is counted is the most that they can take.
        steps = times * evaluation.num_episodes * robot.max_episode_steps
        return [
            Work("start", 1),
            Work(_kind(policy), policy.num_steps, layers(policy)),
            Work(f"evaluate {robot_of(config.target.domain)}", steps),
        ]

    def seed(self, config: ExperimentConfig) -> int:
        """The experiment's own."""
        return config.seed

    def device(self, config: ExperimentConfig) -> DeviceName:
        """See `Stage`; RLlib's learners are trained on the CPU."""
        return "cpu" if config.policy.uses_rllib else config.policy.device

    def fit(self, config: ExperimentConfig) -> Callable[[Job], None]:
        """See `Stage`."""
        return imported(self.fits_rllib) if config.policy.uses_rllib else super().fit(config)


TRAINED: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        ModalityStage(),
        AdvantageStage(),
        AlignmentStage(),
        DensityStage(),
        DynamicsStage(),
        CorrectionStage(),
        PolicyStage(),
    )
}
"""By name, each after those that it may read."""


def works_of(stage: str, config: ExperimentConfig, tables: Tables, spec: DataSpec | None = None) -> list[Work] | None:
    """What computing a node of any stage consists of; None when it depends on a table whose size is not known.

    `spec` is that of a data node. Of `rows` those of the source are laid out.
    """
    if stage in TRAINED:
        return TRAINED[stage].works(config, tables)
    if stage == "data":
        return data_works(spec) if spec else None
    return None if tables.source is None else [Work(stage, tables.source)]


def fit_of(stage: str, config: ExperimentConfig) -> Callable[[Job], None]:
    """The function that computes a node of a trained stage, or rows."""
    return imported(FITS_ROWS) if stage == "rows" else TRAINED[stage].fit(config)


def _kind(policy: PolicyConfig) -> str:
    return f"policy {policy.learner}" + (" in support" if policy.density_weight else "")
