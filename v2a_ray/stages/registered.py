"""Registers all trained stages in `STAGES`, each after its possible inputs, and estimates the cost of any plan node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from v2a_ray.data.config import DataSpec
from v2a_ray.engine.rates import Cost, Tables, data_costs
from v2a_ray.engine.stage import STAGES, imported, register_stage
from v2a_ray.stages.advantage.stage import AdvantageStage
from v2a_ray.stages.alignment.stage import AlignmentStage
from v2a_ray.stages.modality.stage import ModalityStage
from v2a_ray.stages.policy.stage import PolicyStage
from v2a_ray.stages.support.stages import CorrectionStage, DensityStage, DynamicsStage

if TYPE_CHECKING:
    from v2a_ray.engine.context import Job
    from v2a_ray.experiments.experiment import ExperimentConfig

for _stage in (
    ModalityStage(),
    AdvantageStage(),
    AlignmentStage(),
    DensityStage(),
    DynamicsStage(),
    CorrectionStage(),
    PolicyStage(),
):
    register_stage(_stage)

FITS_ROWS = "v2a_ray.engine.context:fit_rows"


def costs_of(stage: str, config: ExperimentConfig, tables: Tables, spec: DataSpec | None = None) -> list[Cost] | None:
    """The cost of computing a node of any stage; None when it depends on a table of unknown size.

    `spec` describes a data node. For `rows`, the source is counted.
    """
    if stage in STAGES:
        return STAGES[stage].costs(config, tables)
    if stage == "data":
        return data_costs(spec) if spec else None
    return None if tables.source is None else [Cost(stage, tables.source)]


def fit_of(stage: str, config: ExperimentConfig) -> Callable[[Job], None]:
    """The function that computes a node of a trained stage, or of `rows`."""
    return imported(FITS_ROWS) if stage == "rows" else STAGES[stage].fit(config)
