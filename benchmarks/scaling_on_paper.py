"""Traffic and memory of the modality stage on a large cluster, from formulas and measurements on this machine.

Prints a Markdown table for docs/scaling.md, for the published sizes on Hopper. The time of an update step is measured
on this machine's processor, so that no GPU speed is assumed. With faster workers communication takes a larger part; the
last row gives the speed at which it takes half of the time.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.learners import PUBLISHED_MODALITY
from benchmarks.record import measured_on, read_results
from benchmarks.tables import ACTION_DIM, OBSERVATION_DIM, ROW_BYTES
from v2a_ray.report.markdown import table_lines
from v2a_ray.stages.modality.model import ModalityModel

WEAK = "modality on 2 workers against 1, one batch each (weak)"
GIB, MIB = 2**30, 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-workers", type=int, default=8)
    parser.add_argument("--num-transitions", type=float, default=1e9)
    parser.add_argument("--workers-per-node", type=int, default=8)
    parser.add_argument("--gigabytes-per-second", type=float, default=10.0, help="of a worker's link, each way")
    arguments = parser.parse_args()
    workers, link = arguments.num_workers, arguments.gigabytes_per_second * 1e9
    transitions = arguments.num_transitions

    gradient = 4 * _num_parameters()
    # A ring sends every worker's share around twice: once to sum it, once to spread the sum.
    sent = 2 * (workers - 1) / workers * gradient
    step_floats = 2 * OBSERVATION_DIM + ACTION_DIM
    held = transitions * 4 * step_floats
    trajectories_per_second = _measured(WEAK)
    rows = [
        ("table on disk, uncompressed", f"{transitions * ROW_BYTES / GIB:,.0f} GiB"),
        ("read once by all workers together", f"{held / GIB:,.0f} GiB"),
        ("held by one worker: its shard of [s, a, s' - s]", f"{held / workers / GIB:,.1f} GiB"),
        ("held by one node", f"{held / workers * min(workers, arguments.workers_per_node) / GIB:,.1f} GiB"),
        ("parameters", f"{_num_parameters():,}"),
        ("gradient, and with it one all-reduce (joint; `em` has two of parts of it)", f"{gradient / MIB:.2f} MiB"),
        ("sent by every worker per update step", f"{sent / MIB:.2f} MiB"),
        (f"time of that at {arguments.gigabytes_per_second:g} GB/s", f"{1e3 * sent / link:.2f} ms"),
    ]
    if trajectories_per_second:
        per_worker = trajectories_per_second / 2
        step = PUBLISHED_MODALITY.batch_size / per_worker
        rows += [
            ("update step of 16 trajectories on one core, measured", f"{1e3 * step:.0f} ms"),
            ("part of it that the all-reduce would be", f"{100 * (sent / link) / step:.2f} %"),
            ("a worker this much faster would spend half its time sending", f"{step / (sent / link):,.0f} times"),
        ]
    print("\n".join(table_lines((f"{workers} workers, {transitions:.0e} transitions", ""), rows)))


def _num_parameters() -> int:
    with torch.device("meta"):
        model = ModalityModel(OBSERVATION_DIM, ACTION_DIM, PUBLISHED_MODALITY)
    return sum(parameter.numel() for parameter in model.parameters())


def _measured(name: str) -> float | None:
    """Trajectories per second of ours, if that benchmark was recorded on this processor."""
    mine = (entry for entry in read_results() if (entry["name"], entry["processor"]) == (name, measured_on()))
    return next((entry["ours"] for entry in mine), None)


if __name__ == "__main__":
    main()
