"""The cost of variants of the modality stage, and how well their z separates the domains. Prints a markdown table.

    python -m benchmarks.modality_quality --data-root DIR               # both mixes; DIR has the recorded datasets
    python -m benchmarks.modality_quality --mixes hopper_nine           # rolls out its data, needs no files
    python -m benchmarks.modality_quality --mixes hopper_nine --quick   # a few steps, to see that it runs

`published` has the published size: a GRU of width 256, a z of 128 dimensions, three decoders of width 256, batches of
16 trajectories cropped to 200 steps, EM. The reference is the same written naively (`benchmarks.reference`).
Milliseconds are CPU time of one thread. All variants take turns within one process, so that other work on the machine
affects all of them; the ratio is the median over the rounds.

Quality is three numbers: the accuracy of a linear probe of z for the domain on held-out episodes; the same on a
behaviour that the probe has not seen, which is high only if z encodes the dynamics rather than the policy; and the
adjusted Rand index of clusters of z against the domains. The column of 0 steps is the untrained encoder, a control.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.learners import PUBLISHED_MODALITY
from benchmarks.reference import ModalityReference
from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.mixing.mixture import CollectionRequest, collection_requests, load_source, mix_sources, relabel
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.diagnosis.modality_audit import audit_modality
from v2a_ray.domains import parse_domain
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments

Float = NDArray[np.float32]
CONFIGS = Path(__file__).parents[1] / "tune_configs"
MIXES = ("real_hopper_mix", "hopper_nine")
REFERENCE = "published, naive"
"""The reference computation for costs."""


@dataclass(frozen=True)
class Form:
    """A variant of the modality stage, and the numbers of update steps after which its z is evaluated."""

    config: ModalityConfig
    most_steps: int = 1500


def sized(width: int, most_steps: int = 1500, **settings: Any) -> Form:
    """Encoder and decoder of one width, crops of 100 steps, z of 16 dimensions, one step on the ELBO, and else as
    published, unless `settings` say otherwise."""
    sizes = {"encoder_width": width, "decoder_width": width, "crop_steps": 100, "latent_dim": 16}
    published = PUBLISHED_MODALITY.model_dump()
    return Form(ModalityConfig.model_validate(published | sizes | {"optimization": "joint"} | settings), most_steps)


FAST: dict[str, Any] = {"learning_rate": 1e-3}
POOLED: dict[str, Any] = {"encoder": "pooled"}
FORMS: dict[str, Form] = {
    "published": Form(PUBLISHED_MODALITY, most_steps=2500),
    "gru 256": sized(256),
    "gru 128": sized(128),
    "gru 64, em": sized(64, optimization="em"),
    "gru 64": sized(64),
    "gru 64, rate 1e-3": sized(64, **FAST),
    "pooled 256, rate 1e-3": sized(256, **POOLED, **FAST),
    "pooled 128": sized(128, most_steps=2500, **POOLED),
    "pooled 128, rate 1e-3": sized(128, **POOLED, **FAST),
    "pooled 64, em": sized(64, **POOLED, optimization="em"),
    "pooled 64": sized(64, **POOLED),
    "pooled 64, rate 1e-3": sized(64, **POOLED, **FAST),
}


def load_mix(name: str, data_root: str) -> EpisodeTable:
    """The source table of `tune_configs/NAME.yaml`, made in this process."""
    config = load_experiment(CONFIGS / f"{name}.yaml", [f"data_root={data_root}"])
    tables = []
    for source in mix_sources(config):
        if source.path is not None:
            tables.append(load_source(source, config.data_root).table)
        else:
            collected = concatenate([roll_out(request) for request in collection_requests(source)])
            tables.append(relabel(collected, source.label, parse_domain(source.domain)))
    return concatenate(tables)


def roll_out(request: CollectionRequest, episodes_at_once: int = 16) -> EpisodeTable:
    """Episodes 0, 1, 2, ... of a request, cut to its number of transitions."""
    tables: list[EpisodeTable] = []
    while sum(table.num_transitions for table in tables) < request.num_transitions:
        first = len(tables) * episodes_at_once
        indices = range(first, first + episodes_at_once)
        domain, policy_domain = parse_domain(request.domain), parse_domain(request.policy_domain)
        tables.append(
            collect_episodes(domain, request.component, indices, request.seed, request.noise_std, policy_domain)
        )
    return concatenate(tables).head(request.num_transitions)


def make_learner(table: EpisodeTable, config: ModalityConfig, seed: int) -> ModalityLearner:
    """As the modality stage makes it."""
    torch.manual_seed(seed)
    model = ModalityModel(table.observation_dim, table.action_dim, config)
    model.set_statistics(moments(table))
    return ModalityLearner(table, model, config, seed)


def step_costs(table: EpisodeTable, forms: Mapping[str, Form], rounds: int, num_steps: int) -> dict[str, list[float]]:
    """CPU milliseconds per update step of the reference and of every form, one number a round."""
    drawn = make_learner(table, PUBLISHED_MODALITY, 0)
    reference = ModalityReference(drawn)
    updates: dict[str, Callable[[int], object]] = {
        REFERENCE: lambda step: reference.update(drawn.crops.draw(drawn.num_trajectories, drawn.generator))
    }
    updates |= {name: make_learner(table, form.config, 0).update for name, form in forms.items()}
    costs: dict[str, list[float]] = {name: [] for name in updates}
    for update in updates.values():
        update(0)
    for round_ in range(rounds):
        for name, update in updates.items():
            start = time.process_time()
            for step in range(num_steps):
                update(1 + round_ * num_steps + step)
            costs[name].append(1e3 * (time.process_time() - start) / num_steps)
    return costs


def qualities(table: EpisodeTable, form: Form, points: Sequence[int], seed: int) -> list[str]:
    """At every point that the form gets to: probe, probe on an unseen behaviour, adjusted Rand index."""
    learner, done = make_learner(table, form.config, seed), 0
    domain, behavior = np.asarray(table.domain), np.asarray(table.behavior)
    cells = []
    for point in points:
        if point > form.most_steps:
            cells.append("")
            continue
        for step in range(done, point):
            learner.update(step)
        done = point
        latent = encode_episodes(learner.model, table, form.config)
        audit = audit_modality(latent, domain, behavior)
        unseen = unseen_behavior_accuracy(latent, domain, behavior)
        cells.append(f"{100 * (audit.probe_domain or 0):.1f}, {100 * unseen:.1f}, {audit.adjusted_rand:.2f}")
    return cells


def unseen_behavior_accuracy(latent_EZ: Float, domain: NDArray[np.str_], behavior: NDArray[np.str_]) -> float:
    """Balanced accuracy of the linear probe for the domain on one behaviour when fitted to the others, averaged."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    scores = cross_val_score(
        probe, latent_EZ, domain, groups=behavior, cv=LeaveOneGroupOut(), scoring="balanced_accuracy"
    )
    return float(scores.mean())


def markdown(
    table: EpisodeTable, forms: Mapping[str, Form], points: Sequence[int], rounds: int, num_steps: int, seed: int
) -> Iterator[str]:
    """The lines of one mix's table, as they are known."""
    costs = step_costs(table, forms, rounds, num_steps)
    yield "| form | ms a step | cheaper | " + " | ".join(f"{point} steps" for point in points) + " |"
    yield "| --- " * (3 + len(points)) + "|"
    yield f"| {REFERENCE} | {statistics.median(costs[REFERENCE]):.1f} | 1.0 |" + "  |" * len(points)
    for name, form in forms.items():
        ratio = statistics.median(ref / own for ref, own in zip(costs[REFERENCE], costs[name], strict=True))
        cells = [name, f"{statistics.median(costs[name]):.1f}", f"{ratio:.1f}"]
        yield "| " + " | ".join([*cells, *qualities(table, form, points, seed)]) + " |"


def main() -> None:
    """One table per mix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of every form")
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=MIXES)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), help="by default all")
    parser.add_argument("--data-root", default=".", help="folder of the recorded datasets")
    parser.add_argument(
        "--points", nargs="+", type=int, default=[0, 250, 500, 1500, 2500], help="steps to judge z after"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forms = {name: form for name, form in FORMS.items() if name in arguments.forms}
    points, rounds, num_steps = ([0, 2], 1, 1) if arguments.quick else (sorted(arguments.points), 5, 4)
    for mix in arguments.mixes:
        table = load_mix(mix, arguments.data_root)
        domains = len(set(table.domain))
        print(f"\n## {mix}: {table.num_episodes} episodes, {domains} domains (chance {100 / domains:.0f} %)\n")
        for line in markdown(table, forms, points, rounds, num_steps, arguments.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
