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
from v2a_ray.outputs import MARK, new_file, require_ours
from v2a_ray.report.dataset_figures import distributions_png, figure_of, ranges_png

SUFFIXES = (".png", ".html")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{mark}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: 0; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
.wide {{ overflow-x: auto; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; font-size: .88rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e2e2e2; }}
th {{ color: #666; font-weight: 500; }}
.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.error {{ color: #b3261e; font-weight: 600; }} .warning {{ color: #8a5a00; font-weight: 600; }}
.info, .quiet {{ color: #666; }} .passed {{ color: #1b6e2d; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="quiet">{subtitle}</p>
<h2>Sources</h2>
<div class="wide">{sources}</div>
<h2>Checks</h2>
{findings}
<h2>Episodes</h2>
<img alt="Histograms of returns and lengths per source" src="{distributions}">
<h2>Features</h2>
<img alt="Ranges of observations and actions per source" src="{ranges}">
<div class="wide">{features}</div>
</body>
</html>
"""


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
    return _PAGE.format(
        mark=MARK,
        title=escape(", ".join(each.source for each in sources[:3]) + (" and more" if len(sources) > 3 else "")),
        subtitle=f"{len(sources)} sources, {episodes:,} episodes, {transitions:,} transitions",
        sources=_sources(sources),
        findings=_findings(inspection.findings),
        distributions=_embedded(distributions_png(sources)),
        ranges=_embedded(ranges_png(sources)),
        features="".join(_features(sources, field) for field in ("observation", "action")),
    )


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
    return f'<div class="wide">{_table(_row(("", "check", "where", "what", "what to do"), (), "th"), rows)}</div>'


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
    return f"<table>{header}{''.join(rows)}</table>"


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
