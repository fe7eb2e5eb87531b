"""`v2a data mix`: the source stage of an experiment alone, or a preview of its mix."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2a_ray.data.mixing.mixture import held_out_episodes, load_source, mix_sources, skips
from v2a_ray.data.table.folder import read_manifest
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import store_of
from v2a_ray.orchestration.cluster.requirements import check_cluster
from v2a_ray.orchestration.data.ingest import VALIDATION
from v2a_ray.orchestration.train.compute import compute_all
from v2a_ray.orchestration.train.listener import Listener
from v2a_ray.orchestration.train.work import Work
from v2a_ray.outputs import new_folder


@dataclass(frozen=True)
class MixRow:
    """The data that a mix takes from one source.

    Attributes:
        source, domain, behavior: labels.
        num_episodes, num_held_out: all episodes, and the held-out ones among them; None for roll-outs not made yet.
        num_transitions: including the held-out ones.
        refused: the reason if the source is left out.
    """

    source: str
    domain: str
    behavior: str
    num_episodes: int | None
    num_held_out: int | None
    num_transitions: int
    refused: str | None = None


def preview_mix(config: ExperimentConfig) -> list[MixRow]:
    """Preview a mix: files are read and checked, nothing is rolled out or written. Raises DataError."""
    rows = []
    for spec in mix_sources(config):
        labels = (spec.label, spec.domain, spec.labelled_behavior)
        if spec.path is None:
            rows.append(MixRow(*labels, None, None, spec.num_transitions or 0))
            continue
        try:
            table = load_source(spec, config.data_root, config.checks).table
        except DataError as error:
            if not skips(config, spec):
                raise
            rows.append(MixRow(*labels, 0, 0, 0, str(error)))
            continue
        held_out = held_out_episodes(table.num_episodes, config.mix.validation_fraction, config.mix.seed, spec.label)
        rows.append(MixRow(*labels, table.num_episodes, len(held_out), table.num_transitions))
    return rows


def make_mix(config: ExperimentConfig, output: Path, listener: Listener) -> dict[str, Any]:
    """Write the mix of an experiment as an episode table into `output` and return its manifest; Ray must be running.

    Held-out episodes go to the table folder `validation` inside it. Artifacts in the store are reused, and new ones are
    kept there for `v2a run`.
    """
    made = compute_tables(config, ["source"], listener)["source"]
    with new_folder(output.absolute()) as partial:
        shutil.copytree(made / "table", partial, dirs_exist_ok=True)
        if (made / VALIDATION).exists():
            shutil.copytree(made / VALIDATION, partial / VALIDATION)
    return read_manifest(output)


def compute_tables(config: ExperimentConfig, names: Sequence[str], listener: Listener) -> dict[str, Path]:
    """The artifacts' folders of these tables in an experiment's plan, and of no other stage; Ray must be running.

    Raises ConfigError or StorageError, as `check_cluster`, before anything is computed.
    """
    plan, store = make_plan(config), store_of(config)
    store.prepare()
    needed = dict.fromkeys([*(given for name in names for given in plan[name].inputs.values()), *names])
    works = [Work(config, plan, plan[name]) for name in needed]
    check_cluster(store, None, works, listener.warned)
    listener.planned("stages", len(works), "a free core")
    made = compute_all(works, store, listener)
    return {name: made[plan[name].key].path for name in names}
