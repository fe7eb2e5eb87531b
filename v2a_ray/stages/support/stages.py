"""The stages for a behaviour density, for models of the target's dynamics, and for corrections made with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from v2a_ray.engine.stage import TABLES, Stage

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig


class DensityStage(Stage):
    """The density of a behaviour policy; it keeps a learned policy in the behaviour's support."""

    name = "density"
    fits = "v2a_ray.stages.support.fit:fit_density"

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES


class DynamicsStage(Stage):
    """Models of the target's dynamics."""

    name = "dynamics"
    fits = "v2a_ray.stages.support.fit:fit_dynamics"

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES


class CorrectionStage(Stage):
    """Predicted action and reward of every source transition in the target."""

    name = "correction"
    fits = "v2a_ray.stages.support.fit:fit_correction"

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | {"dynamics": "dynamics"}
