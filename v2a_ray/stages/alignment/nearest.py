"""Nearest neighbours (after DmC, 2507.20499): how much nearer a transition is to the target than to the source.

    h_i = log(rho_i / nu_i) + log(n_i / m) / X

nu_i is the distance of x_i = [s, a, s'] to its k-th nearest target transition, rho_i its distance to the k-th nearest
source transition other than itself. The density estimate is k over the number of rows times the volume of the ball up
to the k-th neighbour, so X h_i estimates log p_target(x_i) / p_source(x_i) (Wang, Kulkarni and Verdu 2009). Nothing is
trained, so nothing can overfit a small target.

`nearest_states` compares only states and scores minus nu_i: it selects source data near states that the target visits.

n source rows and m target rows are searched; for a row that is among the searched source rows, n - 1 counts.

Shape suffixes: N transitions, B batch, K = k + 1 neighbours, X width of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.errors import DataError
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import NearestConfig, NearestStatesConfig
from v2a_ray.stages.alignment.optimal_transport import features
from v2a_ray.stages.alignment.scores import Alignment, carried

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
CHUNK_ROWS = 4096
SMALLEST_DISTANCE = 1e-6
"""Replaces a distance of 0, which would make the ratio of a row in both tables infinite."""


class Neighbors:
    """The rows of a table for a neighbour search: all eligible rows, or at most `most` of them, drawn by `seed`.

    Attributes:
        chosen: (N,) bool, whether each row of the table is searched.
        count: n, number of searched rows.
    """

    def __init__(
        self,
        transitions: TransitionSampler,
        rows_of: Callable[[Batch], Tensor],
        eligible: Mask,
        *,
        most: int,
        num_neighbors: int,
        seed: int,
    ) -> None:
        """`rows_of` gives the features to compare, (B, X). Raises DataError unless there are more than k rows."""
        from sklearn.neighbors import NearestNeighbors  # takes a second, so other estimators do not import it

        rows = np.random.default_rng(seed).permutation(np.flatnonzero(eligible))[:most]
        self.chosen, self.count, self.k = np.zeros(len(eligible), dtype=bool), len(rows), num_neighbors
        self.chosen[rows] = True
        if self.count <= num_neighbors:
            fewer = f"at most {self.count - 1}, or " if self.count > 1 else ""
            raise DataError(
                f"{num_neighbors} neighbours need {num_neighbors + 1} transitions, and there are {self.count}",
                where="alignment.num_neighbors",
                remedy=f"{fewer}more data; a part of the target is held out (alignment.held_out_fraction)",
            )
        parts, begin = [], 0
        for batch in transitions.chunks(CHUNK_ROWS):
            taken = self.chosen[begin : begin + len(batch.reward_B)]
            parts.append(rows_of(batch).cpu().numpy()[taken])
            begin += len(taken)
        self._search = NearestNeighbors(n_neighbors=num_neighbors + 1).fit(np.concatenate(parts))

    def distance(self, rows_BX: Float, among_B: Mask | None = None) -> Float:
        """(B,): distance to the k-th nearest row, not counting the row itself if it is searched (`among_B`)."""
        nearest_BK, _ = self._search.kneighbors(rows_BX)
        distance_B = nearest_BK[:, self.k - 1]
        if among_B is not None:
            distance_B = np.where(among_B, nearest_BK[:, self.k], distance_B)
        return np.asarray(np.maximum(distance_B, SMALLEST_DISTANCE), dtype=np.float32)


def log_ratio(rows_BX: Float, target: Neighbors, source: Neighbors, among_B: Mask) -> Float:
    """(B,): h of rows (see the module); `among_B` marks rows that are among the searched source rows."""
    nearer_B = np.log(source.distance(rows_BX, among_B) / target.distance(rows_BX))
    return np.asarray(nearer_B + np.log((source.count - among_B) / target.count) / rows_BX.shape[1], dtype=np.float32)


def fit(tables: AlignmentTables[NearestConfig]) -> Fitted:
    """Scores by the log ratio of distances between transitions. Nothing is trained."""
    config, targets = tables.config, tables.transitions(tables.fitted)
    common = {"num_neighbors": config.num_neighbors, "seed": tables.seed}
    everything = np.ones(tables.fitted.num_transitions, dtype=bool)
    target = Neighbors(targets, features, everything, most=config.max_target_transitions, **common)
    eligible = tables.rows.arrival_recorded
    source = Neighbors(tables.sources, features, eligible, most=config.max_source_transitions, **common)

    def score(transitions: TransitionSampler, among_N: Mask) -> Float:
        parts: list[Float] = []
        for batch in transitions.chunks(CHUNK_ROWS):
            begin = sum(map(len, parts))
            rows_BX = features(batch).cpu().numpy()
            parts.append(log_ratio(rows_BX, target, source, among_N[begin : begin + len(rows_BX)]))
            tables.job.progress(begin + len(rows_BX), len(among_N), {})
        return np.concatenate(parts)

    nobody = np.zeros(tables.held_out.num_transitions, dtype=bool)
    held_out = score(tables.transitions(tables.held_out), nobody)
    return Alignment(carried(score(tables.sources, source.chosen), tables.rows), held_out), []


def fit_states(tables: AlignmentTables[NearestStatesConfig]) -> Fitted:
    """Scores by minus the distance of a state to the k-th nearest target state. Nothing is trained."""
    config, targets = tables.config, tables.transitions(tables.fitted)
    target = Neighbors(
        targets,
        lambda batch: batch.observation_BO,
        np.ones(tables.fitted.num_transitions, dtype=bool),
        most=config.max_target_transitions,
        num_neighbors=config.num_neighbors,
        seed=tables.seed,
    )

    def score(transitions: TransitionSampler) -> Float:
        chunks = transitions.chunks(CHUNK_ROWS)
        return -np.concatenate([target.distance(batch.observation_BO.cpu().numpy()) for batch in chunks])

    return Alignment(score(tables.sources), score(tables.transitions(tables.held_out))), []
