"""Choosing between the target alone, a filter, plain mixing and the source alone without a simulator: what is trained.

No method is best with every target (docs/study.md): a filter helps where the target can judge the source, and throws
away what is needed where the target is too bad or too small for that. Mixing keeps it, and half of every batch is still
the bad target; the source alone is without. A source that earned less than the target is seldom worth mixing. So what
both earned says which are trained (`allowed`), and critics that are fitted to target and source decide among them
(`v2a_ray.export.choice`). On Hopper they fail beside a usable target of 100,000 single transitions, where the target
alone is better than what they choose (docs/offline_selection.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2a_ray.data.config import SourceSpec
from v2a_ray.experiments.sweep import Sweep, make_sweep, with_base
from v2a_ray.experiments.sweep_config import SweepConfig
from v2a_ray.settings.shipped import config_path
from v2a_ray.settings.yaml_files import parse_overrides, validate

TARGET, FILTER, MIX, SOURCE = CANDIDATES = "iql_target", "v2a_supported", "iql_mixed", "iql_source"
TAKE_IT_WHOLE = MIX, SOURCE
"""What takes the whole source is left out where the source earned less than the target did."""
CRITIC_STEPS = 2000
"""Update steps of the critics with which choosing was measured."""


def allowed(target_return: float, source_return: float) -> tuple[str, ...]:
    """What is to be chosen from, given the mean return of an episode of the target and of one of the source."""
    if source_return > target_return:
        return CANDIDATES
    return tuple(method for method in CANDIDATES if method not in TAKE_IT_WHOLE)


def choice_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The four methods on the experiment in a file, as a sweep called NAME-choice. Raises ConfigError."""
    path = config_path(path)
    over = parse_overrides(overrides)
    content, notices = with_base({"base": str(path.absolute()), "axes": {"method": list(CANDIDATES)}}, path)
    name = over.pop("name", content["settings"].get("name", path.stem))
    config = validate(SweepConfig, {**content, "name": f"{name}-choice"}, path, over=over)
    return make_sweep(config, path, over, notices)


def narrowed(sweep: Sweep, methods: Sequence[str] = CANDIDATES, sources: Sequence[SourceSpec] | None = None) -> Sweep:
    """A `choice_sweep` with some of its methods and sources only."""
    config = sweep.config.model_copy(update={"axes": {"method": list(methods)}})
    over = dict(sweep.content["over"])
    if sources is not None:
        over["sources"] = [source.model_dump(mode="json", exclude_unset=True) for source in sources]
    return make_sweep(config, Path(sweep.name), over)
