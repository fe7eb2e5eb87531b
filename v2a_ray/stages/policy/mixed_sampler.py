"""Samples the training batches of a policy: B source and B target transitions, with the source part filtered.

Shape suffixes: B batch, b kept source rows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch, TransitionSampler, join_rows, select_rows
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.support.correction import with_corrections


class MixedSampler:
    """Draws training batches of filtered source and unfiltered target transitions, or of one table alone."""

    def __init__(
        self,
        target: TransitionSampler,
        source: TransitionSampler,
        source_filter: SourceFilter,
        config: PolicyConfig,
        reward_scale: float = 1.0,
    ) -> None:
        """`reward_scale`: the scale of the rewards of `source`; the reward correction is scaled by it too."""
        self.correction = config.reward_correction * reward_scale
        self.target, self.source, self.filter, self.config = target, source, source_filter, config
        eligible = source_filter.eligible
        # A calibrated filter may refuse the whole source; then the policy trains on the target alone.
        self.uses_source = config.uses_source and (eligible is None or len(eligible) > 0)
        self.uses_target = config.data != "source" or not self.uses_source
        if eligible is not None and self.uses_source:
            self.source = source.restricted(eligible)

    @property
    def num_drawn(self) -> int:
        """Transitions drawn per table."""
        return self.config.batch_size * (1 if self.uses_source and self.uses_target else 2)

    @property
    def num_source_rows(self) -> int:
        """Source rows of a batch; they come first."""
        return self.filter.num_kept(self.num_drawn) if self.uses_source else 0

    @property
    def num_rows(self) -> int:
        """All rows of a batch."""
        return self.num_source_rows + (self.num_drawn if self.uses_target else 0)

    def sample(self, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """A batch and the TD weights (B,) of its rows: source rows first, then target rows with weight 1."""
        size, device = self.num_drawn, self.target.device
        if not self.uses_source:
            return self.target.sample(size, generator), torch.ones(size, device=device)
        drawn = self.source.sample(size, generator)
        keep, weight_b = self.filter(drawn.extra, size, device)
        kept = drawn if len(keep) == size and not self.filter.config.needs_score else select_rows(drawn, keep)
        if self.config.correct_transitions:
            kept = with_corrections(kept)
        if self.correction:
            kept = self._with_corrected_reward(kept)
        if not self.uses_target:
            return kept, weight_b
        target = self.target.sample(size, generator)
        if self.correction and self.config.reward_correction_data == "mixed":
            target = self._with_corrected_reward(target)
        return _join(kept, target), torch.cat([weight_b, torch.ones(size, device=device)])

    def _with_corrected_reward(self, batch: Batch) -> Batch:
        return replace(batch, reward_B=batch.reward_B + self.correction * batch.extra["alignment"])


def _join(first: Batch, second: Batch) -> Batch:
    """Concatenate two batches, with the extra columns that both have."""
    shared = [name for name in first.extra if name in second.extra]
    extra = {name: torch.cat([first.extra[name], second.extra[name]]) for name in shared}
    return replace(join_rows(first, second), extra=extra)
