"""Datasets as one self-contained HTML page: pictures are embedded, untrusted text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.inspection.inspect import Inspection, SourceSummary
from v2a_ray.errors import ConfigError
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.outputs import new_file, require_ours
from v2a_ray.report.dataset_figures import distributions_pngs, figure_of, ranges_pngs
from v2a_ray.report.page import framed, section, wide

SUFFIXES = (".png", ".html")


def write_inspection(path: Path, inspection: Inspection) -> None:
    """Write a picture (.png) or a page (.html).

    Raises ConfigError for another ending, StorageError for no space or no permission.
    """
    check_output(path)
    content = figure_of(inspection) if path.suffix.lower() == ".png" else page(inspection).encode()
    with new_file(path) as partial:
        partial.write_bytes(content)


def check_output(path: Path) -> None:
    """Raise ConfigError for an unknown suffix, StorageError if the file exists and is not ours."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"the ending {path.suffix!r} says neither a picture nor a page",
            where=f"--output {path}",
            remedy=f"a name that ends in {' or '.join(SUFFIXES)}",
        )
    require_ours(path)


def page(inspection: Inspection) -> str:
    """The page of an inspection."""
    sources = inspection.sources
    transitions = sum(each.num_transitions for each in sources)
    episodes = sum(each.num_episodes for each in sources)
    title = ", ".join(each.source for each in sources[:3]) + (" and more" if len(sources) > 3 else "")
    counts = f"{len(sources)} sources, {episodes:,} episodes, {transitions:,} transitions"
    episodes_alt = "Histograms of returns and lengths per source"
    features = "".join(wide(_features(sources, field)) for field in ("observation", "action"))
    parts = {
        "Sources": wide(_sources(sources)),
        "Checks": _findings(inspection.findings),
        "Episodes": _panels(*((episodes_alt, png) for png in distributions_pngs(sources))),
        "Features": _panels(*(("Ranges per source", png) for png in ranges_pngs(sources))) + features,
    }
    return framed(title, f'<p class="quiet">{counts}</p>\n' + "".join(map(section, parts, parts.values())))


def _panels(*pictures: tuple[str, bytes]) -> str:
    """Pictures side by side, or one below the other where the page is narrow; each says in words what it shows."""
    figures = (f'<figure><img alt="{escape(alt)}" src="{_embedded(png)}"></figure>' for alt, png in pictures)
    return f'<div class="panels">{"".join(figures)}</div>'


def _sources(sources: Sequence[SourceSummary]) -> str:
    names = ("source", "domain", "behavior")
    numbers = ("episodes", "terminated", "transitions", "length", "shortest to longest", "return", "lowest to highest")
    rows = [
        _row(
            (each.source, each.domain, each.behavior),
            (
                f"{each.num_episodes:,}",
                f"{each.num_terminated:,}",
                f"{each.num_transitions:,}",
                f"{each.lengths.mean():.0f}",
                f"{each.lengths.min()} to {each.lengths.max()}",
                with_spread(each.returns, 1),
                f"{each.returns.min():.1f} to {each.returns.max():.1f}",
            ),
        )
        for each in sources
    ]
    return _table(_row(names, numbers, "th"), rows)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return '<p class="passed">All checks passed.</p>'
    rows = [
        f'<tr><td class="{each.severity}">{each.severity}</td>'
        + "".join(f"<td>{escape(text)}</td>" for text in (each.check, each.where, each.message, each.remedy))
        + "</tr>"
        for each in findings
    ]
    return wide(_table(_row(("", "check", "where", "what", "what to do"), (), "th"), rows))


def _features(sources: Sequence[SourceSummary], field: str) -> str:
    """Range and median of every feature."""
    width = max(len(getattr(each, f"{field}_range")) for each in sources)
    rows = []
    for feature in range(width):
        cells = []
        for each in sources:
            ranges, quantiles = getattr(each, f"{field}_range"), getattr(each, f"{field}_quantiles")
            known = feature < len(ranges)
            low, high = ranges[feature] if known else (0.0, 0.0)
            cells.append(f"{low:.3g} to {high:.3g} (median {quantiles[feature][1]:.3g})" if known else "–")
        rows.append(_row((f"{field}[{feature}]",), cells))
    return _table(_row((field,), [each.source for each in sources], "th"), rows)


def _row(texts: Iterable[str], numbers: Iterable[str], tag: str = "td") -> str:
    cells = [f"<{tag}>{escape(text)}</{tag}>" for text in texts]
    cells += [f'<{tag} class="number">{escape(number)}</{tag}>' for number in numbers]
    return f"<tr>{''.join(cells)}</tr>"


def _table(header: str, rows: Iterable[str]) -> str:
    return f"<table><thead>{header}</thead><tbody>{''.join(rows)}</tbody></table>"


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
