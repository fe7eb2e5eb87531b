"""Part A: where choosing the near source would pay, can the target's data tell which one it is?

    python -m benchmarks.study.nearest STORE [STORE ...]

In every cell of the stores whose source is one near and two far dynamics, each estimator says how near every one of
them is to the target:

- "h, KIND": the mean of an alignment column over the transitions of a source, for each kind that the store has;
- "told the dynamics": a model of s' - s from s, a and the name of the dynamics, fitted to the source. Nearest is the
  name with which it predicts the target's transitions best. No learner is told the names, so this is a favourable form
  of "which z explains the target";
- "simulator, target's steps": the target's transitions again in each dynamics, which nobody has: what there is to be
  seen in the target's data;
- "simulator, source's steps": the transitions of each source again in the target's dynamics: what h is to estimate;
- "simulator, 50 of the source's steps": the same over fifty actions in a row, from a recorded state;
- "simulator, 20 of the target's steps": so many of the target's actions in a row in each dynamics, where it has
  episodes. Whoever has simulators of the sources has this.

The rows go to `benchmarks/study/rows/nearest.parquet`, beside those of other stores; what is there is not computed
again.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.study.cells import NEAR
from benchmarks.study.run import ROWS
from benchmarks.study.suites import FOLDER
from v2a_ray.checksums import read_sealed
from v2a_ray.data.fidelity.replays import NUM_STEPS, replay_episodes
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_table_folder
from v2a_ray.diagnosis.evidence import short_name
from v2a_ray.diagnosis.mismatch import one_step, true_mismatch
from v2a_ray.domains import parse_domain
from v2a_ray.engine.columns import read_step_column
from v2a_ray.engine.store import RECORD
from v2a_ray.networks.modules import adam
from v2a_ray.networks.perceptrons import MLP
from v2a_ray.report.markdown import table_lines

PATH = ROWS / "nearest.parquet"
SOURCE_STEPS = 50
TOLD, SIMULATED_TARGET, SIMULATED_SOURCE, REPLAYED_SOURCE, REPLAYED_TARGET = (
    "told the dynamics",
    "simulator, target's steps",
    "simulator, source's steps",
    f"simulator, {SOURCE_STEPS} of the source's steps",
    f"simulator, {NUM_STEPS} of the target's steps",
)
NUM_FITS, FIT_STEPS, BATCH_SIZE, WIDTH, LEARNING_RATE = 4, 3000, 256, 256, 1e-3
MAX_TRANSITIONS = 5_000
Float = NDArray[np.floating[Any]]


def records_of(store: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """The alignments in a store that were made for a cell with near and far sources, and their folders."""
    for path in sorted(store.glob(f"alignment/*/{RECORD}")):
        record = read_sealed(path)
        if "_from_both_" in record["config"]["name"]:
            yield record, path.parent


def place_of(record: dict[str, Any]) -> dict[str, str]:
    """Robot, cell and seed, which the name of a part of a sweep ends with."""
    name = record["config"]["name"]
    sweep = max((file.stem for file in FOLDER.glob("*.yaml") if name.startswith(f"{file.stem}_")), key=len)
    cell, _, seed = name.removeprefix(f"{sweep}_").rpartition("_")
    robot = record["config"]["target"]["domain"].partition("/")[0]
    return {"robot": robot, "cell": cell.replace("_", " "), "seed": seed}


def mean_alignment(folder: Path, source: EpisodeTable) -> dict[str, float]:
    """Mean h of every dynamics in the source."""
    alignment = read_step_column(folder / "column.parquet", "alignment", source)
    domain = np.asarray(source.domain)[source.episode_of_row]
    return {name: float(alignment[domain == name].mean()) for name in np.unique(domain)}


@dataclass(frozen=True)
class ToldModel:
    """A model of s' - s from s, a and the name of the dynamics, in standardised units.

    Attributes:
        names: of the dynamics.
        inputs, change: mean and standard deviation of (s, a) and of s' - s in the source.
    """

    model: MLP
    names: tuple[str, ...]
    inputs: tuple[Float, Float]
    change: tuple[Float, Float]

    @staticmethod
    def fit(source: EpisodeTable, seed: int) -> ToldModel:
        """Fitted to the source alone."""
        names = tuple(str(name) for name in np.unique(source.domain))
        told = np.asarray(source.domain)[source.episode_of_row][:, None] == np.asarray(names)
        inputs, change = _inputs(source), _change(source)
        moments = [(values.mean(axis=0), values.std(axis=0) + 1e-6) for values in (inputs, change)]
        standard, change_NO = (
            torch.tensor((values - mean) / std, dtype=torch.float32)
            for values, (mean, std) in zip((inputs, change), moments, strict=True)
        )
        inputs_NX = torch.cat([standard, torch.tensor(told, dtype=torch.float32)], dim=1)
        torch.manual_seed(seed)
        model = MLP(inputs_NX.shape[1], [WIDTH, WIDTH], change.shape[1])
        optimizer = adam(model.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
        for _ in range(FIT_STEPS):
            rows_B = torch.randint(len(inputs_NX), (BATCH_SIZE,))
            loss = (model(inputs_NX[rows_B]) - change_NO[rows_B]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return ToldModel(model, names, *moments)

    @torch.no_grad()
    def explained(self, target: EpisodeTable) -> dict[str, float]:
        """Minus the mean squared error on the target's transitions, when told each of the names."""
        (mean, std), (change_mean, change_std) = self.inputs, self.change
        seen = (_inputs(target) - mean) / std
        truth = (_change(target) - change_mean) / change_std
        found = {}
        for name, told in zip(self.names, np.eye(len(self.names)), strict=True):
            inputs_NX = torch.tensor(np.hstack([seen, np.tile(told, (len(seen), 1))]), dtype=torch.float32)
            found[name] = -float(np.square(self.model(inputs_NX).numpy() - truth).mean())
        return found


def some(table: EpisodeTable) -> EpisodeTable:
    """Whole episodes, or single rows, of about `MAX_TRANSITIONS` transitions."""
    order = np.random.default_rng(0).permutation(table.num_episodes)
    count = int(np.searchsorted(np.cumsum(table.lengths[order]), MAX_TRANSITIONS)) + 1
    return table.select(np.sort(order[:count]))


def simulated(source: EpisodeTable, target: EpisodeTable) -> dict[str, dict[str, float]]:
    """By estimator, minus how far every dynamics is from the target's; see `mean_mismatch` and `replayed`."""
    unit, (stock, *_) = one_step(target), target.domain
    domain = np.asarray(source.domain)
    parts = {str(name): source.select(np.flatnonzero(domain == name)) for name in np.unique(domain)}
    spread = target.observation.std(axis=0)
    found = {
        SIMULATED_TARGET: {name: -mean_mismatch(target, unit, name) for name in parts},
        SIMULATED_SOURCE: {name: -mean_mismatch(some(part), unit, stock) for name, part in parts.items()},
        REPLAYED_SOURCE: {name: -replayed(part, stock, SOURCE_STEPS, spread) for name, part in parts.items()},
    }
    if int(target.lengths.max()) >= NUM_STEPS:
        found[REPLAYED_TARGET] = {name: -replayed(target, name, NUM_STEPS, spread) for name in parts}
    return found


def replayed(table: EpisodeTable, domain: str, num_steps: int, unit_O: Float) -> float:
    """Median distance from the recorded states after so many recorded actions in a domain, in `unit_O`."""
    (found,) = replay_episodes(table, [parse_domain(domain)], num_steps, unit_O=unit_O)
    return found.after(num_steps)


def mean_mismatch(table: EpisodeTable, unit: Float, domain: str) -> float:
    """Of one step in a domain, in standard deviations of the target's s' - s (`unit`, (O,)), averaged over steps."""
    return float(np.nanmean(true_mismatch(table, unit, parse_domain(domain))))


def _inputs(table: EpisodeTable) -> Float:
    return np.hstack([table.observation, table.action]).astype(np.float64)


def _change(table: EpisodeTable) -> Float:
    return table.next_observation.astype(np.float64) - table.observation


def rows_of(store: Path, known: AbstractSet[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    """A row for each estimator and dynamics of every cell in a store.

    Not again for (robot, cell, seed, estimator) in `known`, but for alignments, which are there to be read.
    """
    seen = set()
    models: dict[str, list[ToldModel]] = {}
    for record, folder in records_of(store):
        place, inputs = place_of(record), record["inputs"]
        here = tuple(place.values())
        source, target = (read_table_folder(Path(inputs[role]) / "table") for role in ("source", "target"))
        found = {f"h, {record['config']['alignment']['kind']}": mean_alignment(folder, source)}
        if here not in seen:
            seen.add(here)
            few = some(target)
            if (*here, f"{TOLD}, fit {NUM_FITS}") not in known:
                if inputs["source"] not in models:
                    models[inputs["source"]] = [ToldModel.fit(source, seed) for seed in range(NUM_FITS)]
                for number, model in enumerate(models[inputs["source"]], 1):
                    found[f"{TOLD}, fit {number}"] = model.explained(few)
            if (*here, REPLAYED_SOURCE) not in known:
                found |= simulated(source, few)
        for estimator, scores in found.items():
            for domain, score in scores.items():
                yield {**place, "estimator": estimator, "domain": short_name(domain), "score": score}


def read_rows(path: Path = PATH) -> list[dict[str, Any]]:
    """What was found so far."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    return rows


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Which dynamics every estimator puts first, cell by cell, in Markdown; `ceiling.distances` has the other ones."""
    names = {row["estimator"].partition(", fit")[0] for row in rows}
    estimators = sorted(names - {SIMULATED_SOURCE, REPLAYED_SOURCE})
    lines = []
    ordered = sorted(rows, key=lambda row: (row["robot"], row["cell"]))
    for (robot, cell), members in itertools.groupby(ordered, key=lambda row: (row["robot"], row["cell"])):
        own = list(members)
        firsts = [
            _firsts([row for row in own if row["estimator"].startswith(name)], NEAR[robot]) for name in estimators
        ]
        lines.append((f"{robot}: {cell}", *firsts))
    return "\n".join(table_lines(("target, from source", *estimators), lines))


def _firsts(rows: Sequence[dict[str, Any]], near: str) -> str:
    """How often each dynamics is the nearest, over seeds and fits."""
    tries: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        name = "**near**" if row["domain"] == near else row["domain"]
        tries.setdefault((row["seed"], row["estimator"]), {})[name] = row["score"]
    first = [max(scores, key=lambda name: scores[name]) for scores in tries.values()]
    # In the order of their names where they are as often first.
    by_count = sorted(sorted(set(first)), key=first.count, reverse=True)
    return ", ".join(f"{name} {first.count(name)}" if len(first) > 1 else name for name in by_count)


def main() -> None:
    """Read the stores, write the rows and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    key = ("robot", "cell", "seed", "estimator", "domain")
    found = {tuple(row[name] for name in key): row for row in read_rows()}
    known = {place[:-1] for place in found}
    for row in itertools.chain.from_iterable(rows_of(store, known) for store in given.stores):
        found[tuple(row[name] for name in key)] = row
    pq.write_table(pa.Table.from_pylist([found[place] for place in sorted(found)]), PATH)
    print(report(read_rows()))


if __name__ == "__main__":
    main()
