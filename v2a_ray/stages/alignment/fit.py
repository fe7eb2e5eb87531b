"""Runs the alignment stage on files: fit the estimator, write h of the source and of the held-out target. No Ray."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from v2a_ray.engine.columns import write_step_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.stage import imported
from v2a_ray.engine.trainer import use_threads
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted


def estimate_alignment(job: Job) -> Fitted:
    """h of a job's source and of its held-out target transitions, by the configured estimator."""
    fits = type(job.config.alignment).fits
    assert fits is not None  # kind=none has no such stage
    fitted: Fitted = imported(fits)(AlignmentTables(job))
    return fitted


def fit_alignment(job: Job) -> None:
    """Fit the configured estimator; write the column `alignment` and the held-out target scores."""
    use_threads(job.config.alignment.num_threads)
    source = job.rows("source")
    alignment, history = estimate_alignment(job)
    write_step_column(job.output / "column.parquet", "alignment", source, alignment.source)
    pq.write_table(pa.table({"alignment": pa.array(alignment.held_out)}), job.output / "held_out.parquet")
    job.write_history(history)
