"""What `v2a choose` trains.

The data come first: which sources are near enough, and what they earned, says which policies are to be chosen from.
"""

from __future__ import annotations

from pathlib import Path

from v2a_ray.data.fidelity.replays import Replays, far, replay_episodes
from v2a_ray.data.rewards import require_rewards
from v2a_ray.data.table.folder import read_manifest, read_table_folder
from v2a_ray.domains import parse_domain
from v2a_ray.domains.domain import require_robot
from v2a_ray.errors import DataError
from v2a_ray.evaluation.offline import HELD_OUT
from v2a_ray.experiments.choice import FILTER, allowed, narrowed
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.sweep import Sweep
from v2a_ray.export.selection import SelectionData
from v2a_ray.orchestration.data.mix import compute_tables
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.orchestration.train.listener import Listener


def train_candidates(
    sweep: Sweep, folder: Path, listener: Listener | None = None, *, leave_out_far: bool = False
) -> list[Replays]:
    """Train what is to be chosen from of a `choice_sweep`, into `folder`; Ray must be running.

    With `leave_out_far` the target's recorded actions are replayed in the domain of every source, and sources whose
    domain is far beside the nearest (`replays.far`) are left out of the mix. Returns the replays; none without.

    Raises DataError before anything is trained if the target has no rewards, or no parts that can be replayed;
    DomainError for a source that has no simulator, or another robot's; and what `run_sweep` raises.
    """
    listener = listener or Listener()
    replays = _replay(sweep, listener) if leave_out_far else []
    if left_out := {each.domain for each in far(replays)}:
        sources = _config(sweep).sources
        sweep = narrowed(sweep, sources=[each for each in sources if parse_domain(each.domain).name not in left_out])
        listener.warned(f"left out, far beside {replays[0].domain}: {', '.join(sorted(left_out))}")
    data = _make_data(sweep, listener)
    run_sweep(narrowed(sweep, allowed(data.target_return, data.source_return)), folder, listener)
    return replays


def _config(sweep: Sweep) -> ExperimentConfig:
    """Of the filter, which has target and source, and is always trained."""
    return next(trial.config for trial in sweep.trials if trial.labels["method"] == FILTER)


def _replay(sweep: Sweep, listener: Listener) -> list[Replays]:
    """The target's episodes in the domains of the sources, the nearest first."""
    config = _config(sweep)
    # Refused before the target's data are made.
    sources = [require_robot(parse_domain(source.domain), "a replay") for source in config.sources]
    domains = {domain.name: domain for domain in sources}
    target = read_table_folder(compute_tables(config, ("data/target",), listener)["data/target"] / "table")
    try:
        return replay_episodes(target, list(domains.values()))
    except DataError as error:
        remedy = "whole target episodes (target.subsample=first), or v2a choose without --replay"
        raise DataError(error.what, where=error.where, remedy=remedy) from error


def _make_data(sweep: Sweep, listener: Listener) -> SelectionData:
    """The tables of target and source, which all candidates share."""
    config = _config(sweep)
    made = compute_tables(config, ("data/target", "source"), listener)
    target, source = made["data/target"], made["source"]
    require_rewards(read_manifest(target / "table"), "v2a choose")
    held_out = target / HELD_OUT if config.is_offline else None
    return SelectionData.stored(target / "table", held_out, source / "table", parse_domain(config.target.domain))
