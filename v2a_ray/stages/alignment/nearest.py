"""Nearest neighbours (after DmC, 2507.20499): how much nearer the target is to a transition than the source is.

    h_i = log(rho_i / nu_i) + log(n_i / m) / X

nu_i is the distance of x_i = [s, a, s'] to its k-th nearest target transition, rho_i that to its k-th nearest source
transition beside itself. A density is estimated by k over the number of rows times the volume of the ball that reaches
to the k-th neighbour, so X h_i estimates log p_target(x_i) / p_source(x_i) (Wang, Kulkarni and Verdu 2009). Nothing is
trained, so nothing overfits a small target.

`nearest_states` compares states alone, by minus nu_i: it retrieves what the source did where the target has been.

n and m rows of source and target are searched; of a row that is searched itself the others count, n - 1.

Shape suffixes: N transitions, B batch, K = k + 1 neighbours, X width of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.errors import ConfigError
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import NearestConfig, NearestStatesConfig
from v2a_ray.stages.alignment.optimal_transport import features
from v2a_ray.stages.alignment.scores import Alignment, carried

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
CHUNK_ROWS = 4096
SMALLEST_DISTANCE = 1e-6
"""Stands for a distance of 0: the ratio of a row that is in both tables would be infinite."""


class Neighbors:
    """Rows of a table among which neighbours are sought: all that are eligible, or `most` of them, drawn by `seed`.

    Attributes:
        chosen: (N,) which rows of the table they are.
        count: n, how many.
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
        """`rows_of` gives what is compared, (B, X). Raises ConfigError for fewer rows than neighbours."""
        from sklearn.neighbors import NearestNeighbors  # a second, which other estimators need not wait for

        rows = np.random.default_rng(seed).permutation(np.flatnonzero(eligible))[:most]
        self.chosen, self.count, self.k = np.zeros(len(eligible), dtype=bool), len(rows), num_neighbors
        self.chosen[rows] = True
        if self.count <= num_neighbors:
            raise ConfigError(
                f"{num_neighbors} neighbours are asked of {self.count} transitions",
                where="alignment.num_neighbors",
                remedy=f"at most {self.count - 1}, or more data",
            )
        parts, begin = [], 0
        for batch in transitions.chunks(CHUNK_ROWS):
            taken = self.chosen[begin : begin + len(batch.reward_B)]
            parts.append(rows_of(batch).cpu().numpy()[taken])
            begin += len(taken)
        self._search = NearestNeighbors(n_neighbors=num_neighbors + 1).fit(np.concatenate(parts))

    def distance(self, rows_BX: Float, among_B: Mask | None = None) -> Float:
        """(B,): to the k-th nearest row; of a row that is one of them (`among_B`) to the k-th beside itself."""
        nearest_BK, _ = self._search.kneighbors(rows_BX)
        distance_B = nearest_BK[:, self.k - 1]
        if among_B is not None:
            distance_B = np.where(among_B, nearest_BK[:, self.k], distance_B)
        return np.asarray(np.maximum(distance_B, SMALLEST_DISTANCE), dtype=np.float32)


def log_ratio(rows_BX: Float, target: Neighbors, source: Neighbors, among_B: Mask) -> Float:
    """(B,): h of rows, of which `among_B` are among the neighbours of the source; see the module."""
    nearer_B = np.log(source.distance(rows_BX, among_B) / target.distance(rows_BX))
    return np.asarray(nearer_B + np.log((source.count - among_B) / target.count) / rows_BX.shape[1], dtype=np.float32)


def fit(tables: AlignmentTables[NearestConfig]) -> Fitted:
    """The log ratio of distances of whole transitions. Nothing is trained."""
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
    """Minus the distance of a state to the k-th nearest of the target's. Nothing is trained."""
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
