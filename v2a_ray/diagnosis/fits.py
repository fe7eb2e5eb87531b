"""Fits the advantages for the value audit that a run lacks: global, conditioned on z, and an oracle per domain.

All use the run's learner, settings and number of steps, and are stored in the run's store for other runs on the same
data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from v2a_ray.data.loading.sampler import EpisodeValues, Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.diagnosis.evidence import Evidence
from v2a_ray.engine.columns import read_step_column, write_step_column
from v2a_ray.engine.context import CHECKPOINT
from v2a_ray.engine.devices import choose_device
from v2a_ray.engine.store import stage_key
from v2a_ray.engine.trainer import TrainingLoop, use_threads
from v2a_ray.stages.advantage.config import AdvantageConfig
from v2a_ray.stages.advantage.learner import AdvantageLearner

Float = NDArray[np.float32]
FitProgress = Callable[[str, int, int], None]
"""Called as progress(name of the fit, step, num_steps)."""
STAGE = "diagnosis"
NUM_ORACLES = 2
"""Oracles per domain; they differ only in their seed, so their agreement limits the agreement of any candidate."""


@dataclass(frozen=True)
class Advantages:
    """Advantages of all N source transitions.

    Attributes:
        of_everything: (N,) A(s, a), fitted to the whole source without z.
        conditioned: (N,) A(s, a, z), if the run has z.
        oracles: NUM_ORACLES arrays (N,); each domain's transitions are valued by a learner fitted to that domain alone.
    """

    of_everything: Float | None
    conditioned: Float | None
    oracles: list[Float]


@dataclass(frozen=True)
class _Fit:
    name: str
    episodes: NDArray[np.int64]
    uses_latent: bool
    seed: int


def find_or_fit(evidence: Evidence, quick: bool, progress: FitProgress) -> Advantages:
    """Advantages from the run, from its store, or fitted now; with `quick`, nothing is fitted."""
    config, table = evidence.run.config, evidence.source
    everything = np.arange(table.num_episodes)
    # With an ablated z, the column is neither A(s, a) nor A(s, a, z).
    is_own = evidence.advantage is not None and config.advantage.latent == "learned"
    own = config.advantage.conditioning if is_own else None

    def column(name: str, uses_latent: bool) -> Float | None:
        if own == ("modality" if uses_latent else "none"):
            return evidence.advantage
        return _column(evidence, _Fit(name, everything, uses_latent, config.upstream_seed), quick, progress)

    of_everything = column("A(s, a)", False)
    conditioned = column("A(s, a, z)", True) if evidence.latent is not None else None
    oracles = []
    for index in range(NUM_ORACLES):
        values = np.full(table.num_transitions, np.nan, dtype=np.float32)
        for domain in evidence.domains:
            episodes = np.flatnonzero(evidence.domain_of_episode == domain)
            name = f"oracle {index + 1} of {domain}"
            found = _column(evidence, _Fit(name, episodes, False, config.upstream_seed + index), quick, progress)
            if found is not None:
                values[np.isin(table.episode_of_row, episodes)] = found
        if np.isfinite(values).all():
            oracles.append(values)
    return Advantages(of_everything, conditioned, oracles)


def _column(evidence: Evidence, fit: _Fit, quick: bool, progress: FitProgress) -> Float | None:
    """The fitted advantage of the transitions of `fit.episodes`, in order; None if it is missing and `quick` is set."""
    run = evidence.run
    table = evidence.source.select(fit.episodes)
    inputs = {"source": run.artifacts["source"].name, "target": run.artifacts["data/target"].name}
    if fit.uses_latent:
        inputs["modality"] = run.artifacts["modality"].name
    settings = {
        "advantage": _settings_of_fit(run.config.advantage),
        "preprocessing": run.config.preprocessing.model_dump(mode="json"),
        "episodes": list(table.episode_id),
    }
    key = stage_key(STAGE, settings, inputs, fit.seed)

    def make(output: Path, work: Path) -> None:
        values = _fit(evidence, table, fit, work, progress)
        write_step_column(output / "column.parquet", "advantage", table, values)

    artifact = run.store.find(STAGE, key)
    if artifact is None:
        if quick:
            return None
        artifact = run.store.get_or_make(STAGE, key, make, {"fit": fit.name, "inputs": inputs})
    return read_step_column(artifact.path / "column.parquet", "advantage", table)


def _settings_of_fit(config: AdvantageConfig) -> dict[str, Any]:
    """Settings that change the numbers of a fit; kind and expectile only for IQL."""
    unused = {"conditioning", "latent", "checkpoint_interval_steps", "log_interval_steps", "device"}
    return config.model_dump(mode="json", exclude=unused | (set() if config.kind == "iql" else {"kind", "expectile"}))


def _fit(evidence: Evidence, table: EpisodeTable, fit: _Fit, work: Path, progress: FitProgress) -> Float:
    config = evidence.run.config.advantage
    use_threads(config.num_threads)
    columns, latent_dim = {}, 0
    if fit.uses_latent:
        assert evidence.latent is not None
        latent = np.ascontiguousarray(evidence.latent[fit.episodes], dtype=np.float32)
        columns["z"], latent_dim = EpisodeValues(latent, table.offsets), latent.shape[1]
    transitions = Transitions(table, evidence.run.preprocessing, columns, choose_device(config.device))
    torch.manual_seed(fit.seed)
    learner = AdvantageLearner(transitions, latent_dim, config, fit.seed)
    TrainingLoop(
        num_steps=config.num_steps,
        checkpoint=work / CHECKPOINT,
        checkpoint_interval_steps=config.checkpoint_interval_steps,
        log_interval_steps=config.log_interval_steps,
        progress=lambda step, num_steps, _: progress(fit.name, step, num_steps),
    ).run(learner)
    return learner.score(transitions)
