"""Part B of the study: does knowing the dynamics change which transitions are thought good? Columns only, no policies.

    python -m benchmarks.study.where_z_matters --output DIR [--mixes NAME ...] [--steps 5000 20000]

A mix is two dynamics, of which the rarer has a fifth of the rows. The same policies of the stock robot drive both: half
random actions, half its medium policy with action noise of 0.3. So the same action is taken in similar states under
both. One learner is fitted to every mix as A(s, a); as the same with another seed; as A(s, a, z) with z of the modality
stage, with z exchanged at random between episodes, and with the true dynamics as z; and as two oracles, which differ in
their seed, to each dynamics alone. Each is held against the mean of the oracles after every number of steps. If z has
something to mend, A(s, a) and A(s, a, true z) disagree by more than A(s, a) does with its other seed.

`laboratory` is the positive control: an action is worth the opposite in the rarer dynamics, and nothing else is.
Columns in DIR are not fitted again. The numbers go to `benchmarks/study/rows/where_z_matters.parquet`.

Shape suffixes: N transitions, E episodes, S numbers of update steps, Z latent dimension.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.modality_quality import make_learner, roll_out
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.loading.sampler import STANDARD_DEVIATION_FLOOR, EpisodeValues, Preprocessing, Transitions
from v2a_ray.data.mixing.dimension_maps import mapped
from v2a_ray.data.mixing.mixture import CollectionRequest
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.diagnosis.measures import rank_correlation
from v2a_ray.diagnosis.modality_audit import audit_modality
from v2a_ray.diagnosis.value_audit import Agreement, audit_value
from v2a_ray.engine.columns import one_hot
from v2a_ray.engine.trainer import use_threads
from v2a_ray.outputs import file_name, new_file
from v2a_ray.report.markdown import table_lines
from v2a_ray.stages.advantage.config import AdvantageConfig, SparseQConfig
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.model import encode_episodes

Float = NDArray[np.float32]
ROWS = Path(__file__).parent / "rows" / "where_z_matters.parquet"
RARE, COMMON = "rare", "common"
NUM_TRANSITIONS = {RARE: 6_000, COMMON: 24_000}
NOISE_STD, KEEP_FRACTION = 0.3, 0.5
ADVANTAGE, MODALITY = SparseQConfig(width=128), ModalityConfig(num_steps=1000, learning_rate=1e-3)
"""Half of the published width, for there are nine fits in a mix; and as in Part A."""
STEPS = (5_000, 20_000)
CANDIDATES = (
    "A(s, a)",
    "A(s, a), seed 1",
    "A(s, a, z)",
    "A(s, a, shuffled z)",
    "A(s, a, true z)",
    "oracle 1 by oracle 2",
)


@dataclass(frozen=True)
class Dynamics:
    """A domain, or a stock robot whose motors are wired otherwise.

    Attributes:
        domain: name.
        wiring: rows of the matrix that turns the stock robot's action into the one that has the same effect; empty for
            the domain's own.
    """

    domain: str
    wiring: tuple[tuple[float, ...], ...] = ()


def reversed_motors(robot: str, *factors: float) -> Dynamics:
    """A stock robot that turns each motor by `factor` times the action."""
    return Dynamics(f"{robot}/stock", tuple(tuple(row) for row in np.diag(factors).tolist()))


def exchanged_motors(robot: str, *order: int) -> Dynamics:
    """A stock robot in which action i reaches motor `order[i]`."""
    return Dynamics(f"{robot}/stock", tuple(tuple(row) for row in np.eye(len(order))[list(order)].tolist()))


HOPPER, CHEETAH = Dynamics("hopper/stock"), Dynamics("halfcheetah/stock")
LABORATORY = "laboratory"
MIXES: dict[str, tuple[Dynamics, Dynamics]] = {
    "hopper, all motors reversed": (HOPPER, reversed_motors("hopper", -1, -1, -1)),
    "hopper, gravity 0.5 with 2": (Dynamics("hopper/gravity-0.5"), Dynamics("hopper/gravity-2")),
    "halfcheetah, all motors reversed": (CHEETAH, reversed_motors("halfcheetah", *[-1] * 6)),
    "halfcheetah, gravity 0.5 with 2": (Dynamics("halfcheetah/gravity-0.5"), Dynamics("halfcheetah/gravity-2")),
    "hopper, actions 4 steps late": (HOPPER, Dynamics("hopper/action_delay-4")),
    "hopper, one motor reversed": (HOPPER, reversed_motors("hopper", 1, 1, -1)),
    "halfcheetah, legs exchanged": (CHEETAH, exchanged_motors("halfcheetah", 3, 4, 5, 0, 1, 2)),
    "hopper, foot joint of one tenth": (HOPPER, Dynamics("hopper/kinematic-footjnt-hard")),
    "halfcheetah, actions 4 steps late": (CHEETAH, Dynamics("halfcheetah/action_delay-4")),
    "hopper, gravity 0.5": (HOPPER, Dynamics("hopper/gravity-0.5")),
    "halfcheetah, one motor reversed": (CHEETAH, reversed_motors("halfcheetah", -1, 1, 1, 1, 1, 1)),
    "hopper, gravity 0.9": (HOPPER, Dynamics("hopper/gravity-0.9")),
}
"""The rarer dynamics and the commoner one."""


@dataclass(frozen=True)
class Fit:
    """What a learner is fitted to: episodes of the mix, and its z (E, Z), if it has one."""

    episodes: NDArray[np.int64]
    latent: Float | None
    seed: int


def rolled_out(name: str) -> EpisodeTable:
    """The mix; the label `domain` is `rare` or `common`."""
    if name == LABORATORY:
        return laboratory()
    parts = []
    for label, dynamics in zip((RARE, COMMON), MIXES[name], strict=True):
        stock = f"{dynamics.domain.split('/')[0]}/stock"
        for behavior in ("random", "medium"):
            noise = 0.0 if behavior == "random" else NOISE_STD
            request = CollectionRequest(dynamics.domain, stock, behavior, NUM_TRANSITIONS[label] // 2, 0, noise)
            table = roll_out(request)
            if dynamics.wiring:
                wiring = [list(row) for row in dynamics.wiring]
                spec = SourceSpec(domain=dynamics.domain, behavior=behavior, num_transitions=1, action_map=wiring)
                table = mapped(table, spec)
            parts.append(table.labelled(source=f"{label}-{behavior}", domain=label, behavior=behavior))
    return concatenate(parts)


def laboratory(num_transitions: Mapping[str, int] = NUM_TRANSITIONS, episode_steps: int = 50) -> EpisodeTable:
    """One step matters: reward and motion are sign · a, where sign is 1 in the rarer dynamics and -1 in the other."""
    generator = np.random.default_rng(0)
    parts = []
    for label, sign in ((RARE, 1.0), (COMMON, -1.0)):
        count = num_transitions[label]
        observation = generator.standard_normal((count, 2)).astype(np.float32)
        action = generator.uniform(-1, 1, (count, 1)).astype(np.float32)
        episodes = count // episode_steps
        truncated = np.ones(episodes, bool)
        parts.append(
            EpisodeTable(
                observation=observation,
                action=action,
                reward=sign * action[:, 0],
                next_observation=observation + np.float32(sign) * action,
                offsets=np.arange(episodes + 1) * episode_steps,
                terminated=~truncated,
                truncated=truncated,
                episode_id=tuple(f"{label}/{index:06d}" for index in range(episodes)),
                source=(label,) * episodes,
                domain=(label,) * episodes,
                behavior=("random",) * episodes,
            )
        )
    return concatenate(parts)


def preprocessing_of(table: EpisodeTable) -> Preprocessing:
    """Observations standardised by the rarer dynamics, which is the target's; rewards scaled by the mix's returns."""
    rare = table.select(np.flatnonzero(np.asarray(table.domain) == RARE)).observation
    scale = 1000.0 / max(float(np.ptp(table.returns)), 1e-6)
    return Preprocessing(rare.mean(axis=0), np.maximum(rare.std(axis=0), STANDARD_DEVIATION_FLOOR), scale)


def fits_of(table: EpisodeTable, latent_EZ: Float) -> dict[str, Fit]:
    """Everything that is fitted in a mix, by name."""
    everything, domain = np.arange(table.num_episodes), np.asarray(table.domain)
    exchanged = np.random.default_rng(0).permutation(latent_EZ)
    fits = {
        "A(s, a)": Fit(everything, None, 0),
        "A(s, a), seed 1": Fit(everything, None, 1),
        "A(s, a, z)": Fit(everything, latent_EZ, 0),
        "A(s, a, shuffled z)": Fit(everything, exchanged, 0),
        "A(s, a, true z)": Fit(everything, one_hot(domain.tolist()), 0),
    }
    for seed in (0, 1):
        for label in (RARE, COMMON):
            fits[f"oracle {seed + 1} of {label}"] = Fit(np.flatnonzero(domain == label), None, seed)
    return fits


def fitted(table: EpisodeTable, fit: Fit, steps: Sequence[int], config: AdvantageConfig) -> Float:
    """(S, N) advantages of the transitions of `fit.episodes`, in order, after each of S numbers of update steps."""
    part = table.select(fit.episodes)
    columns = {} if fit.latent is None else {"z": EpisodeValues(fit.latent[fit.episodes], part.offsets)}
    transitions = Transitions(part, preprocessing_of(table), columns)
    torch.manual_seed(fit.seed)
    latent_dim = 0 if fit.latent is None else fit.latent.shape[1]
    learner = AdvantageLearner(transitions, latent_dim, config, fit.seed)
    found = []
    for step in range(max(steps)):
        learner.update(step)
        if step + 1 in steps:
            found.append(learner.score(transitions))
    return np.stack(found)


def screen(
    name: str,
    table: EpisodeTable,
    steps: Sequence[int],
    output: Path,
    config: AdvantageConfig = ADVANTAGE,
    modality: ModalityConfig = MODALITY,
) -> list[dict[str, Any]]:
    """The rows of a mix: one for each candidate and number of steps."""
    use_threads(config.num_threads)
    learner = make_learner(table, modality, 0)
    for step in range(modality.num_steps):
        learner.update(step)
    latent_EZ = encode_episodes(learner.model, table, modality)
    probe = audit_modality(latent_EZ, np.asarray(table.domain), np.asarray(table.behavior)).probe_domain
    fits, columns = fits_of(table, latent_EZ), {}
    for title, fit in fits.items():
        path = output / f"{file_name(f'{name} {title} {max(steps)}')}.npy"
        if not path.exists():
            found = fitted(table, fit, steps, config)
            with new_file(path) as partial, partial.open("wb") as stream:
                np.save(stream, found)
            print(f"{name}: {title} fitted", flush=True)
        columns[title] = np.load(path)
    rows = []
    for index, count in enumerate(steps):
        by_title = {title: values[index] for title, values in columns.items()}
        rows += [{"mix": name, "steps": count, "probe": probe} | row for row in compared(table, by_title)]
    return rows


def compared(table: EpisodeTable, columns: Mapping[str, Float]) -> list[dict[str, Any]]:
    """Agreement of every candidate with the oracles' mean, and how far it is from A(s, a); one row each."""
    domain = np.asarray(table.domain)[table.episode_of_row]
    oracles = []
    for number in (1, 2):
        values = np.empty(len(domain), np.float32)
        for label in (RARE, COMMON):
            values[domain == label] = columns[f"oracle {number} of {label}"]
        oracles.append(values)
    rows = []
    for candidate in CANDIDATES[:-1]:
        audit = audit_value(columns[candidate], None, (oracles[0], oracles[1]), domain, KEEP_FRACTION)
        same = rank_correlation(columns[candidate], columns["A(s, a)"])
        rows.append({"candidate": candidate, "agrees_with_a": same} | _numbers(audit.of_everything))
    return [*rows, {"candidate": CANDIDATES[-1], "agrees_with_a": None} | _numbers(audit.ceiling)]


def _numbers(agreement: Agreement) -> dict[str, Any]:
    return {
        "rank_rare": agreement.rank_correlation[RARE],
        "rank_common": agreement.rank_correlation[COMMON],
        "top_rare": agreement.top_overlap[RARE],
        "top_mix": agreement.mixed_top_overlap,
        "discordant": agreement.discordant,
    }


def read_rows(path: Path = ROWS) -> list[dict[str, Any]]:
    """The rows so far, by mix in the order of `MIXES` and by steps."""
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    order = [LABORATORY, *MIXES]
    return sorted(rows, key=lambda row: (order.index(row["mix"]), row["steps"]))


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each mix and number of steps, in Markdown."""
    shown = [name for name in CANDIDATES if name != "A(s, a), seed 1"]
    lines = []
    for mix, count in dict.fromkeys((row["mix"], row["steps"]) for row in rows):
        own = {row["candidate"]: row for row in rows if (row["mix"], row["steps"]) == (mix, count)}
        cells = [f"{own[name]['rank_rare']:+.2f}, {own[name]['discordant']:.0%}" for name in shown]
        apart = ", ".join(f"{own[name]['agrees_with_a']:+.2f}" for name in ("A(s, a), seed 1", "A(s, a, true z)"))
        lines.append((mix, f"{count:,}", f"{own['A(s, a)']['probe']:.0%}", *cells, apart))
    head = ("mix", "steps", "z names the dynamics", *shown, "A(s, a) and its other seed, and true z")
    return "\n".join(table_lines(head, lines))


def main() -> None:
    """Screen mix after mix; rows are written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the columns")
    parser.add_argument(
        "--mixes", nargs="+", choices=(LABORATORY, *MIXES), default=(LABORATORY, *MIXES), metavar="NAME"
    )
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    rows = read_rows()
    for name in given.mixes:
        new = screen(name, rolled_out(name), sorted(given.steps), given.output)
        places = {(row["mix"], row["steps"]) for row in new}
        rows = [row for row in rows if (row["mix"], row["steps"]) not in places] + new
        pq.write_table(pa.Table.from_pylist(rows), ROWS)
        print(report(new), flush=True)


if __name__ == "__main__":
    main()
