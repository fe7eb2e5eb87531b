"""Optimal-transport alignment (OTDF, ICLR 2025): the cost of transporting a source transition to the target's.

    C_ij = 1 - cos(x_i, y_j),  x = [s, a, s'] of the source, y of the target
    P    = argmin_P <P, C> - epsilon H(P)  with uniform marginals (Sinkhorn, by POT)
    h_i  = - n sum_j P_ij C_ij             higher = better aligned

The source is solved in blocks of n transitions against the whole target. The published score has no factor n. With it,
h_i is minus the mean cost of transition i under its own row of the plan, in [-2, 0], and does not depend on the block
size. Every target transition takes part in the plan of every block, so a block should contain all sources in about
their proportions, as consecutive rows of a combined table do.

Shape suffixes: n source rows of a block, M target rows, X = 2 O + A.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.errors import DivergenceError
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import OptimalTransportConfig
from v2a_ray.stages.alignment.scores import Alignment, carried

LARGEST_COST = 2.0
SAFE_EXPONENT = 80.0
"""exp(-80) is still a normal float32; a smaller epsilon needs the logarithmic form, which is much slower."""
TOLERANCE = 1e-3
"""Sinkhorn iterations end when the relative error of a marginal is at most this (in the Euclidean norm)."""


def transport_scores(source_nX: Tensor, target_MX: Tensor, regularization: float, num_iterations: int) -> Tensor:
    """(n,): minus the mean cost of every source row under the entropic plan.

    Raises DivergenceError when the plan has not converged after `num_iterations`.
    """
    import ot  # takes seconds, so other estimators do not import it

    cost_nM = 1.0 - _unit(source_nX) @ _unit(target_MX).T
    rows_n = torch.full((len(cost_nM),), 1.0 / len(cost_nM), device=cost_nM.device)
    columns_M = torch.full((cost_nM.shape[1],), 1.0 / cost_nM.shape[1], device=cost_nM.device)
    stop = TOLERANCE * float(columns_M.norm())
    plan_nM, log = ot.sinkhorn(
        rows_n,
        columns_M,
        cost_nM,
        regularization,
        method="sinkhorn_log" if LARGEST_COST / regularization > SAFE_EXPONENT else "sinkhorn",
        numItermax=num_iterations,
        stopThr=stop,
        warn=False,
        log=True,
    )
    if not float(log["err"][-1]) <= stop:
        raise DivergenceError(
            f"the transport plan has not converged in {num_iterations} iterations: the relative error of a marginal is "
            f"{float(log['err'][-1]) / stop * TOLERANCE:.1g}, at most {TOLERANCE:g} is accepted",
            where="alignment",
            remedy="raise alignment.max_iterations or alignment.regularization",
        )
    # Rows of an almost converged plan sum to almost 1 / n, so divide by each row's own sum.
    scores_n: Tensor = -(plan_nM * cost_nM).sum(dim=1) / plan_nM.sum(dim=1)
    return scores_n


class OptimalTransport:
    """Scores transitions against a target in memory. Nothing is trained.

    A target of more than `max_target_transitions` is subsampled to that number, by `seed`.
    """

    def __init__(self, target: TransitionSampler, config: OptimalTransportConfig, seed: int) -> None:
        self.config = config
        target_MX = torch.cat(
            [features(batch)[batch.arrival_recorded] for batch in target.chunks(config.block_transitions)]
        )
        if len(target_MX) > config.max_target_transitions:
            order = torch.randperm(len(target_MX), generator=torch.Generator().manual_seed(seed))
            target_MX = target_MX[order[: config.max_target_transitions].to(target_MX.device)]
        self.target_MX = target_MX

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """(N,): h of all transitions, block by block; NaN where the next observation was not recorded (`carried`).

        `progress` is called with the number of finished rows and of all rows.
        """
        scores, done = [], 0
        for batch in transitions.chunks(self.config.block_transitions):
            # A step without a recorded next observation has no part in the plan and no score of its own.
            recorded_n, block_nX = batch.arrival_recorded, features(batch)
            score_n = torch.full((len(block_nX),), float("nan"), device=block_nX.device)
            if recorded_n.any():
                score_n[recorded_n] = transport_scores(
                    block_nX[recorded_n], self.target_MX, self.config.regularization, self.config.max_iterations
                )
            scores.append(score_n)
            done += len(block_nX)
            if progress:
                progress(done, len(transitions))
        return torch.cat(scores)


def features(batch: Batch) -> Tensor:
    """(B, X): state, action and next state."""
    return torch.cat([batch.observation_BO, batch.action_BA, batch.next_observation_BO], dim=1)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def fit(tables: AlignmentTables[OptimalTransportConfig]) -> Fitted:
    """Scores by minus the transport cost of a transition. Nothing is trained."""
    targets, held_out, job = tables.transitions(tables.fitted), tables.transitions(tables.held_out), tables.job
    torch.manual_seed(tables.seed)
    transport = OptimalTransport(targets, tables.config, tables.seed)
    moved = transport.score(tables.sources, lambda done, total: job.progress(done, total, {}))
    return Alignment(carried(moved.cpu().numpy(), tables.rows), transport.score(held_out).cpu().numpy()), []
