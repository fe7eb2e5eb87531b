"""The alignment stage: h of every source transition, by the configured estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from v2a_ray.engine.rates import Cost, Tables
from v2a_ray.engine.stage import SOURCE_ROWS, TABLES, Stage

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig


class AlignmentStage(Stage):
    """h of every source transition."""

    name = "alignment"
    fits = "v2a_ray.stages.alignment.fit:fit_alignment"
    rows = SOURCE_ROWS

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | {name: name for name in config.alignment.reads}

    def costs(self, config: ExperimentConfig, tables: Tables) -> list[Cost] | None:
        """See `Stage`."""
        return config.alignment.costs(tables)
