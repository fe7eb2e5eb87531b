"""What `v2a choose` trains. The data come first, for what they earned says which policies are to be chosen from."""

from __future__ import annotations

from pathlib import Path

from v2a_ray.data.rewards import require_rewards
from v2a_ray.data.table.folder import read_manifest
from v2a_ray.domains import parse_domain
from v2a_ray.evaluation.offline import HELD_OUT
from v2a_ray.experiments.choice import FILTER, allowed, narrowed
from v2a_ray.experiments.sweep import Sweep
from v2a_ray.export.selection import SelectionData
from v2a_ray.orchestration.data.mix import compute_tables
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.orchestration.train.listener import Listener


def train_candidates(sweep: Sweep, folder: Path, listener: Listener | None = None) -> None:
    """Train what is to be chosen from of a `choice_sweep`, into `folder`; Ray must be running.

    Raises DataError before anything is trained if the target has no rewards, and what `run_sweep` raises.
    """
    listener = listener or Listener()
    data = _make_data(sweep, listener)
    run_sweep(narrowed(sweep, allowed(data.target_return, data.source_return)), folder, listener)


def _make_data(sweep: Sweep, listener: Listener) -> SelectionData:
    """The tables of target and source, which all candidates share."""
    config = next(trial.config for trial in sweep.trials if trial.labels["method"] == FILTER)
    made = compute_tables(config, ("data/target", "source"), listener)
    target, source = made["data/target"], made["source"]
    require_rewards(read_manifest(target / "table"), "v2a choose")
    held_out = target / HELD_OUT if config.is_offline else None
    return SelectionData.stored(target / "table", held_out, source / "table", parse_domain(config.target.domain))
