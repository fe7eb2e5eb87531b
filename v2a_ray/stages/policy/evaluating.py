"""How a policy is evaluated while it trains: rolled out in the target, or held against recordings where none can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.rewards import missing_rewards
from v2a_ray.data.table.folder import read_table_folder
from v2a_ray.domains import parse_domain
from v2a_ray.domains.rollout import Act
from v2a_ray.engine.context import Job
from v2a_ray.engine.trainer import Metrics
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig
from v2a_ray.evaluation.offline import HELD_OUT, OfflineData, evaluate_offline
from v2a_ray.evaluation.returns import evaluate
from v2a_ray.settings.measures import OFFLINE_MEASURES, RANK_SCORE

Evaluate = Callable[[Act], dict[str, Any]]
"""From a policy to what stands of it in `result.json`."""
_TARGET_QUANTILE = 0.1


def make_evaluate(job: Job) -> Evaluate:
    """The evaluation that the target's domain allows."""
    config, offline = job.config.evaluation, job.config.offline
    if not job.config.is_offline:
        domain = parse_domain(job.config.target.domain)

        def roll_out(act: Act) -> dict[str, Any]:
            results = evaluate(act, domain, config.num_episodes, config.seed)
            return results.summary() | {"returns": results.returns.tolist(), "lengths": results.lengths.tolist()}

        return roll_out
    data = OfflineData(
        job.table("target"),
        read_table_folder(job.inputs["target"] / HELD_OUT),
        has_rewards=not missing_rewards(job.manifest("target")),
    )
    critics = FittedQConfig(
        num_steps=offline.num_steps,
        num_critics=offline.num_critics,
        discount=offline.discount,
        num_threads=job.config.policy.num_threads,
        device=job.config.policy.device if job.may_use_gpu else "cpu",
    )
    return lambda act: evaluate_offline(act, data, critics, offline.seed).summary(offline.rank_by)


def recorded_names(job: Job) -> list[str]:
    """The numbers of an evaluation that make curves."""
    return [RANK_SCORE, *OFFLINE_MEASURES] if job.config.is_offline else ["return_mean", "normalized_score_mean"]


def as_metrics(evaluation: Mapping[str, Any], names: list[str]) -> Metrics:
    """Those of these numbers that are known, under the names that curves have."""
    return {f"evaluation/{name}": value for name in names if (value := evaluation[name]) is not None}


def alignment_of_target(job: Job) -> dict[str, float]:
    """How the alignment h of target transitions that its estimator did not see compares with the source's.

    `source_as_aligned` is the part of the source whose h is above the 10 % quantile of theirs.
    """
    if not job.config.is_offline or "alignment" not in job.inputs:
        return {}
    held_out = held_out_alignment(job)
    column = pq.read_table(job.inputs["alignment"] / "column.parquet").column("alignment").combine_chunks()
    source = column.flatten().to_numpy(zero_copy_only=False)
    return {
        "held_out_alignment_mean": float(held_out.mean()),
        "source_alignment_mean": float(source.mean()),
        "source_as_aligned": float((source >= np.quantile(held_out, _TARGET_QUANTILE)).mean()),
    }


def held_out_alignment(job: Job) -> NDArray[np.float32]:
    """(M,) h of target transitions that its estimator did not see."""
    column = pq.read_table(job.inputs["alignment"] / "held_out.parquet").column("alignment")
    return np.asarray(column.to_numpy(), dtype=np.float32)
