"""The filter: selects source transitions of a batch for training and gives their weights (V2A, equation for f).

    f = lambda * h + (1 - lambda) * minmax(A),  min-max over the drawn batch

`filter.normalization` offers other ways to scale A, and optionally h, to [0, 1] (`normalized_columns`).

h and A are precomputed columns of the source table. Shape suffixes: B drawn batch, b kept batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.engine.stage import imported
from v2a_ray.stages.alignment.scores import ranks
from v2a_ray.stages.policy.config import CalibratedConfig, FilterConfig

Float = NDArray[np.float32]
MAX_WEIGHT = 100.0


def minmax(values_B: Tensor) -> Tensor:
    """(B,) scaled to [0, 1] over the batch."""
    low, high = values_B.amin(), values_B.amax()
    return (values_B - low) / (high - low).clamp(min=1e-8)


def calibrated_threshold(held_out: Float, acceptance: float) -> float:
    """The alignment threshold that a fraction `acceptance` of held-out target transitions reaches."""
    return float(np.quantile(held_out, 1.0 - acceptance))


def normalized_columns(config: FilterConfig, columns: Mapping[str, Float]) -> dict[str, Float]:
    """(N,) columns `normalized_alignment` and `normalized_advantage`, normalised over the whole source table.

    With `normalization: batch` there are none, and terms are normalised batch by batch. Ranks are mid-ranks in [0, 1].
    """
    if config.normalization == "batch":
        return {}
    names = {"advantage"}
    if config.normalize_alignment or config.normalization == "ranks":
        names.add("alignment")
    found = {name: values for name, values in columns.items() if name in names}
    if config.normalization == "ranks":
        return {f"normalized_{name}": ranks(values, values) for name, values in found.items()}
    return {f"normalized_{name}": minmax(torch.tensor(values)).numpy() for name, values in found.items()}


class Selector(Protocol):
    """A filter rule, constructed from its settings."""

    def eligible(self, alignment: Float | None, held_out: Float | None) -> NDArray[np.bool_] | None:
        """(N,) bool, whether each row of the source table may be drawn at all; None: all may.

        Args:
            alignment: (N,) h of the source, if that column exists.
            held_out: (M,) h of held-out target transitions.
        """
        ...

    def num_kept(self, batch_size: int) -> int:
        """b, the number of kept transitions out of `batch_size` drawn ones."""
        ...

    def keep(self, score_B: Tensor) -> Tensor:
        """Indices (b,) of the kept transitions, given f of the drawn ones."""
        ...


@dataclass(frozen=True)
class KeepAll:
    """Keeps every source transition."""

    config: FilterConfig

    def eligible(self, alignment: Float | None, held_out: Float | None) -> NDArray[np.bool_] | None:
        """See `Selector`."""
        return None

    def num_kept(self, batch_size: int) -> int:
        """See `Selector`."""
        return batch_size

    def keep(self, score_B: Tensor) -> Tensor:
        """See `Selector`."""
        return torch.arange(len(score_B), device=score_B.device)


class TopFraction(KeepAll):
    """Keeps the fraction xi of every batch with the highest f."""

    def num_kept(self, batch_size: int) -> int:
        """See `Selector`."""
        return max(1, round(self.config.keep_fraction * batch_size))

    def keep(self, score_B: Tensor) -> Tensor:
        """See `Selector`."""
        return torch.topk(score_B, self.num_kept(len(score_B)), sorted=False).indices


class Calibrated(TopFraction):
    """`TopFraction` of the transitions whose alignment reaches the calibrated threshold; possibly none does."""

    config: CalibratedConfig

    def eligible(self, alignment: Float | None, held_out: Float | None) -> NDArray[np.bool_] | None:
        """See `Selector`."""
        assert alignment is not None and held_out is not None  # the configuration refuses it otherwise
        passes: NDArray[np.bool_] = alignment >= calibrated_threshold(held_out, self.config.target_acceptance)
        return passes


@dataclass(frozen=True)
class SourceFilter:
    """Selects rows of a drawn source batch by their columns.

    Attributes:
        config: rule and constants.
        selector: the rule.
        eligible: (n,) int64 eligible rows of the source table, possibly empty. None: all rows.
    """

    config: FilterConfig
    selector: Selector
    eligible: Tensor | None

    @staticmethod
    def prepare(config: FilterConfig, alignment: Float | None = None, held_out: Float | None = None) -> SourceFilter:
        """Find the eligible rows of a source table; see `Selector.eligible`."""
        selector: Selector = imported(type(config).selects)(config)
        rows = selector.eligible(alignment, held_out)
        return SourceFilter(config, selector, None if rows is None else torch.from_numpy(np.flatnonzero(rows)))

    def score(self, columns: dict[str, Tensor], batch_size: int, device: torch.device | str = "cpu") -> Tensor:
        """f (B,) from the existing columns; the term of a missing column is left out."""
        alignment, advantage = columns.get("alignment"), columns.get("advantage")
        if self.config.normalization == "batch":
            advantage = None if advantage is None else minmax(advantage)
            if alignment is not None and self.config.normalize_alignment:
                alignment = minmax(alignment)
        else:
            advantage = columns.get("normalized_advantage")
            alignment = columns.get("normalized_alignment", alignment)
        weight = self.config.alignment_weight
        if alignment is None and advantage is None:
            return torch.ones(batch_size, device=device)
        if advantage is None:
            assert alignment is not None
            return alignment
        if alignment is None:
            return advantage
        return weight * alignment + (1 - weight) * advantage

    def num_kept(self, batch_size: int) -> int:
        """b, the number of kept transitions out of `batch_size` drawn ones."""
        return self.selector.num_kept(batch_size)

    def __call__(
        self, columns: dict[str, Tensor], batch_size: int, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Indices (b,) of the kept rows and their TD weights (b,), on `device`, the device of the columns."""
        score_B = self.score(columns, batch_size, device)
        keep = self.selector.keep(score_B)
        match self.config.weight:
            case "one":
                weight_b = torch.ones(len(keep), device=score_B.device)
            case "exp_alignment":
                weight_b = columns["alignment"][keep].exp().clamp(max=MAX_WEIGHT)
            case "score":
                weight_b = score_B[keep]
            case "exp_score":
                weight_b = (score_B[keep] - 1).exp().clamp(max=MAX_WEIGHT)
            case "above_threshold":
                weight_b = (columns["alignment"][keep] > self.config.weight_threshold).float()
        return keep, weight_b
