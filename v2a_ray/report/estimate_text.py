"""The estimate of a sweep, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from v2a_ray.experiments.estimate import Estimate, StageEstimate


def render_estimate(estimate: Estimate) -> RenderableType:
    """A row per stage, and below it trials, hours and resources."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("artifacts", "in the store", "to compute", "core hours"):
        table.add_column(name, justify="right")
    table.add_column("rates")
    for stage in estimate.stages:
        counts = (stage.num_artifacts, stage.num_found, stage.num_artifacts - stage.num_found)
        table.add_row(stage.stage, *(f"{count:,}" for count in counts), f"{stage.seconds / 3600:,.2f}", _rates(stage))
    return Group(table, "", *_lines(estimate))


def _rates(stage: StageEstimate) -> str:
    unknown = f" ({stage.num_unknown:,} unknown, not counted)" if stage.num_unknown else ""
    return " and ".join(stage.basis) + unknown


def _lines(estimate: Estimate) -> list[str]:
    upstream = [stage for stage in estimate.stages if stage.stage != "policy"]
    policies = next(stage for stage in estimate.stages if stage.stage == "policy")
    memory = f"{estimate.process_gib:.1f} GiB"
    if estimate.table_gib is None:
        memory += ", and tables whose size is not known before their files are read"
    else:
        memory += f", and up to {1024 * estimate.table_gib:,.0f} MiB of tables that all trials of a node share"
    gpus = "where there are any" if estimate.gpus_per_trial == "auto" else f"{estimate.gpus_per_trial:g}"
    return [
        f"{estimate.num_trials:,} trials, of which {policies.num_found:,} are done; "
        f"{sum(stage.num_artifacts for stage in upstream):,} artifacts before them, "
        f"of which {sum(stage.num_found for stage in upstream):,} are there",
        f"{estimate.cpu_hours:,.1f} core hours; about {in_words(estimate)} on {estimate.num_cpus:,} cores, "
        f"{estimate.num_at_once:,} trials at a time",
        f"a trial: {estimate.threads_per_trial} CPU, {memory}; GPUs: {gpus}",
        "rates: store = what artifacts of the same kind took there; "
        f"measured = {estimate.command} on one core of {estimate.processor}",
    ]


def in_words(estimate: Estimate) -> str:
    """`10.2 hours (9.1 to 12.0 hours, as artifacts in the store scatter)`."""
    text = _duration(estimate.hours)
    if estimate.spread_hours:
        low, high = map(_duration, estimate.spread_hours)
        text += f" ({low} to {high}, as artifacts in the store scatter)"
    return text


def against_truth(estimate: Estimate, seconds: float) -> str:
    """What a sweep took, beside what was estimated before it."""
    return f"took {_duration(seconds / 3600)}; {in_words(estimate)} were estimated"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.0f} minutes"
