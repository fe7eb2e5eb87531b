"""Scaling of the modality stage over data-parallel workers: two workers compared with one process.

Strong: the published batch of 16 trajectories, shared. Weak: 16 trajectories per worker, so that two workers see twice
as many per step. The benchmark compares trajectories per second of update steps only, because starting Ray Train's
workers takes a few seconds once, whatever the number of steps. Ray runs already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from benchmarks.learners import PUBLISHED_MODALITY
from benchmarks.record import Result, interleaved, record
from benchmarks.tables import random_episodes
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.context import Job
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.train.modality_workers import fit_modality_parallel
from v2a_ray.stages.modality.fit import fit_modality

TRAJECTORIES = 16
TARGET = 1.5
"""Of two workers; what is lost is the all-reduce and the wait for the slower worker."""
SMALL = {"crop_steps": 50, "latent_dim": 16, "encoder_width": 64, "decoder_width": 64}


def main() -> None:
    """Measure strong and weak scaling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks and few steps, no recording")
    parser.add_argument("--num-steps", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=2)
    arguments = parser.parse_args()
    num_steps = 20 if arguments.quick else arguments.num_steps
    sizes = PUBLISHED_MODALITY.model_dump() | (SMALL if arguments.quick else {})
    with tempfile.TemporaryDirectory() as name, ray_session(num_cpus=2):
        source = Path(name) / "source"
        write_table(random_episodes(64), source / "table", num_files=4)

        def rate(num_workers: int, batch_size: int) -> float:
            """Trajectories per second."""
            settings = sizes | {"num_workers": num_workers, "batch_size": batch_size, "num_steps": num_steps}
            return _rate(source, settings, num_steps)

        def compare(title: str, batch_size_of_two: int) -> Result:
            measured = interleaved(
                lambda: rate(2, batch_size_of_two),
                lambda: rate(1, TRAJECTORIES),
                1 if arguments.quick else arguments.repetitions,
            )
            return Result(
                f"modality on 2 workers against 1, {title}", *measured[:2], "trajectories/s", measured[2], TARGET
            )

        results = [
            compare("one batch shared (strong)", TRAJECTORIES),
            compare("one batch each (weak)", 2 * TRAJECTORIES),
        ]
    record(results, write=not arguments.quick)


def _rate(source: Path, settings: dict[str, Any], num_steps: int) -> float:
    """Trajectories per second between the first and the last quarter of the steps."""
    part = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 10}
    interval = num_steps // 4
    experiment = {"name": "scaling", "method": "v2a", "target": part, "sources": [part]}
    modality = settings | {"log_interval_steps": interval, "checkpoint_interval_steps": 10 * num_steps}
    config = ExperimentConfig.model_validate(experiment | {"modality": modality})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "output").mkdir()
        job = Job(config, {"source": source}, folder / "output", folder / "work", _clock(folder / "times"))
        fit = fit_modality_parallel if settings["num_workers"] > 1 else fit_modality
        # In a task, as the platform does it; one process gets the core that a worker gets.
        ray.get(ray.remote(fit).options(num_cpus=0).remote(job))
        times = [float(line) for line in (folder / "times").read_text().split()]
    steps = interval * (len(times) - 1)
    return settings["batch_size"] * steps / (times[-1] - times[0])


def _clock(file: Path) -> Callable[..., None]:
    """A progress callback that notes when it was called."""

    def note(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        with file.open("a") as lines:
            lines.write(f"{time.monotonic()}\n")

    return note


if __name__ == "__main__":
    main()
