"""Plots of a diagnosis: z in two dimensions, densities of advantages, and the filter's selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from v2a_ray.diagnosis.diagnose import Diagnosis
from v2a_ray.diagnosis.evidence import Evidence
from v2a_ray.diagnosis.filter_audit import FilterAudit
from v2a_ray.diagnosis.fits import Advantages
from v2a_ray.diagnosis.modality_audit import principal_plane
from v2a_ray.files import replacing

Float = NDArray[np.floating[Any]]
# Okabe and Ito's colours, which colour-blind readers tell apart; the nearest domain comes first.
_COLORS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
_MARKERS = "os^DvPX*"
_DPI = 130
_DENSITY_POINTS = 4000


def draw_pictures(diagnosis: Diagnosis, folder: Path) -> dict[str, Path]:
    """Draw the plots that the diagnosis has data for; maps sections to files."""
    evidence, advantages = diagnosis.evidence, diagnosis.advantages
    files: dict[str, Path] = {}
    if evidence is None:
        return files
    if evidence.encoded is not None:
        files["modality"] = folder / "modality.png"
        _draw_modality(evidence, evidence.encoded, files["modality"])
    if advantages is not None and any(values is not None for values in _candidates(advantages).values()):
        files["value"] = folder / "advantage.png"
        _draw_advantages(evidence, advantages, files["value"])
    audit = diagnosis.audits.get("filter")
    if isinstance(audit, FilterAudit):
        files["filter"] = folder / "acceptance.png"
        _draw_acceptance(evidence, audit, files["filter"])
    return files


def _draw_modality(evidence: Evidence, latent_EZ: Float, path: Path) -> None:
    plane = principal_plane(latent_EZ)
    figure = Figure(figsize=(7.6, 5.0), layout="constrained")
    axes: Any = figure.subplots()
    behaviors = sorted(set(evidence.behavior_of_episode.tolist()))
    sizes = 20 + 60 * np.sqrt(evidence.source.lengths / evidence.source.lengths.max())
    for domain in evidence.domains:
        for behavior in behaviors:
            shown = (evidence.domain_of_episode == domain) & (evidence.behavior_of_episode == behavior)
            axes.scatter(
                *plane[shown].T,
                s=sizes[shown],
                color=_color(evidence, domain),
                marker=_marker(behaviors, behavior),
                alpha=0.75,
                edgecolor="white",
                linewidth=0.6,
            )
    handles = [_dot(_color(evidence, domain), "o", domain) for domain in evidence.domains]
    handles += [_dot("0.4", _marker(behaviors, behavior), behavior) for behavior in behaviors]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, title="true domain, behaviour")
    axes.set_title("z of every source episode, on its first two principal directions")
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    _save(figure, path)


def _draw_advantages(evidence: Evidence, advantages: Advantages, path: Path) -> None:
    """One panel per advantage, one density per true domain; the outermost percent on either side is not shown."""
    present = {name: values[evidence.rows] for name, values in _candidates(advantages).items() if values is not None}
    figure = Figure(figsize=(4.4 * len(present), 3.6), layout="constrained")
    grid = figure.subplots(1, len(present), squeeze=False, sharex=True)
    generator = np.random.default_rng(0)
    low, high = np.quantile(np.concatenate(list(present.values())), [0.01, 0.99])
    points = np.linspace(low, high, 300)
    for axes, (title, values) in zip(grid[0], present.items(), strict=True):
        for domain in evidence.domains:
            inside = values[evidence.domain == domain]
            if len(inside) > _DENSITY_POINTS:
                inside = generator.choice(inside, _DENSITY_POINTS, replace=False)
            if np.ptp(inside) > 0:
                density = gaussian_kde(inside)(points)
                color = _color(evidence, domain)
                axes.plot(points, density, color=color, label=domain)
                axes.fill_between(points, density, color=color, alpha=0.12, linewidth=0)
        axes.set_title(title, fontsize=11)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
    grid[0][0].set_ylabel("density")
    grid[0][-1].legend(frameon=False)
    figure.supxlabel("advantage, in scaled reward")
    _save(figure, path)


def _draw_acceptance(evidence: Evidence, audit: FilterAudit, path: Path) -> None:
    """Left: the probability that a drawn transition passes, by domain and behaviour. Right: h of the same parts."""
    names = [f"{part.domain}\n{part.behavior}" for part in audit.parts]
    positions = np.arange(len(names))
    panels = 1 if evidence.alignment is None else 2
    figure = Figure(figsize=(5.6 * panels, 1.2 + 0.62 * len(names)), layout="constrained")
    grid = figure.subplots(1, panels, squeeze=False, sharey=True)
    axes = grid[0][0]
    values = [part.acceptance for part in audit.parts]
    colors = [_color(evidence, part.domain) for part in audit.parts]
    axes.barh(positions, values, color=colors, height=0.7)
    for position, part in zip(positions, audit.parts, strict=True):
        text = f"{part.acceptance:.0%}  ({part.kept_share:.0%} of what passes)"
        inside = part.acceptance > 0.6
        axes.text(
            part.acceptance + (-0.015 if inside else 0.015),
            position,
            text,
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
            fontsize=9,
            bbox=None if inside else {"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    mean = audit.overall.acceptance
    axes.axvline(mean, color="0.4", linewidth=1, linestyle="--", zorder=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"probability of passing the filter (dashed: the whole source, {mean:.0%})")
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    if evidence.alignment is not None:
        _draw_alignment(evidence, grid[0][1])
    _save(figure, path)


def _draw_alignment(evidence: Evidence, axes: Any) -> None:
    assert evidence.alignment is not None and evidence.held_out is not None
    h = evidence.alignment[evidence.rows]
    boxes = axes.boxplot(
        [h[evidence.of_part(part)] for part in evidence.parts],
        positions=np.arange(len(evidence.parts)),
        orientation="horizontal",
        widths=0.55,
        whis=(5, 95),
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, (domain, _) in zip(boxes["boxes"], evidence.parts, strict=True):
        box.set(facecolor=_color(evidence, domain), alpha=0.7)
    axes.axvline(np.median(evidence.held_out), color="0.4", linewidth=1, linestyle="--", zorder=0)
    axes.set_xlabel("alignment h: quartiles, 5 to 95 % (dashed: held-out target, median)")


def _candidates(advantages: Advantages) -> dict[str, Float | None]:
    oracles = advantages.oracles
    return {
        "A(s, a): one for all": advantages.of_everything,
        "A(s, a, z)": advantages.conditioned,
        "oracles: one per true domain": np.mean(oracles, axis=0) if oracles else None,
    }


def _color(evidence: Evidence, domain: str) -> str:
    return _COLORS[evidence.domains.index(domain) % len(_COLORS)]


def _marker(behaviors: list[str], behavior: str) -> str:
    return _MARKERS[behaviors.index(behavior) % len(_MARKERS)]


def _dot(color: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="", label=label)


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=_DPI, format="png")
