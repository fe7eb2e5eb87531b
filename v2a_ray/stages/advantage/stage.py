"""The advantage stage: A(s, a) or A(s, a, z) of every source transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from v2a_ray.engine.stage import SOURCE_ROWS, TABLES, Stage
from v2a_ray.stages.modality.stage import LATENT

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig


class AdvantageStage(Stage):
    """A of every source transition."""

    name = "advantage"
    fits = "v2a_ray.stages.advantage.fit:fit_advantage"
    rows = SOURCE_ROWS

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`; the oracle's z is the label, which is part of the source table."""
        learned = config.advantage.conditioning == "modality" and config.advantage.latent != "oracle"
        return TABLES | (LATENT if learned else {})
