"""Results of runs and sweeps as one self-contained HTML page, or as a table for a text.

Everything that others wrote (labels, names of methods, reasons of failures) is escaped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from v2a_ray.evaluation.aggregates import NUM_RESAMPLES
from v2a_ray.outputs import new_file
from v2a_ray.report.comparison import Comparison, tidy_rows
from v2a_ray.report.markdown import table_lines
from v2a_ray.report.modality_map import modality_section
from v2a_ray.report.page import framed, section, table
from v2a_ray.report.page_figures import as_svg, figures, shown_colors

_DEFINITIONS = (
    "Cells: mean ± sample standard deviation over n seeds. IQM: the mean of the middle half of all seeds of all tasks. "
    "P(better): the probability that a seed of the method scores more than one of the baseline in the same task, ties "
    f"a half, averaged over tasks. Brackets: 95 % percentile intervals of {NUM_RESAMPLES:,} bootstrap resamples of the "
    "seeds inside their tasks; there are none below three seeds. Definitions: Agarwal et al. 2021, arXiv:2108.13264."
)
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "·": r"$\cdot$",
}  # fmt: skip
_LATEX_COMMENT = "% "


def page(comparison: Comparison, title: str, commands: Sequence[str]) -> str:
    """The page; `commands` are the commands that made its results."""
    script = resources.files(__package__).joinpath("page.js").read_text()
    common, varying = comparison.settings()
    stages = [[name, f"{made}", f"{found}", f"{spent:,.1f}"] for name, made, found, spent in comparison.stages()]
    failures, modality = comparison.failures(), modality_section(comparison.finished, as_svg)
    sections = [
        ("What was run", "".join(f"<p>{escape(text)}</p>" for text in comparison.summary())),
        ("Results", _results(comparison)),
        *((name, _figure(caption, svg)) for name, caption, svg in figures(comparison)),
        *([modality] if modality else []),
        ("Failures", _failures(failures)),
        ("Time and cache by stage", table(["stage", "computed", "found in the store", "seconds in all"], stages)),
        ("What the policies differ in", table(varying[0], varying[1:])),
        ("Settings of all policies", f"<pre>{escape(common)}</pre>"),
        ("Versions", table(["package", "version"], [list(each) for each in comparison.versions().items()])),
        ("Commands", f"<pre>{escape(chr(10).join(commands))}</pre>"),
    ]
    return framed(title, "".join(section(*each) for each in sections), script)


def markdown(comparison: Comparison) -> str:
    """The table of results as Markdown."""
    header, *rows = comparison.table()
    return "\n".join([*table_lines(header, rows), "", _DEFINITIONS]) + "\n"


def latex(comparison: Comparison) -> str:
    """The table of results for `booktabs`."""
    header, *rows = comparison.table()
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in (header, *rows)]
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [
            _LATEX_COMMENT + _DEFINITIONS,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    ) + "\n"  # fmt: skip


def comma_separated(comparison: Comparison) -> str:
    """A row per policy, finished or not."""
    rows = tidy_rows(comparison.records)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FORMATS: dict[str, Callable[[Comparison], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}
"""Tables for texts, by name; the page is `html`."""


def write_page(path: Path, content: str) -> None:
    """Write the page, or a newer one over it. Raises StorageError: no space, no permission, or not ours."""
    with new_file(path) as fresh:
        fresh.write_text(content)


def _results(comparison: Comparison) -> str:
    header, *rows = comparison.table()
    boxes = "".join(
        f'<label><input type="checkbox" checked data-method="{index}">'
        f'<svg class="swatch" viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1" fill="{color}"/></svg>'
        f"{escape(method)}</label>"
        for index, (method, color) in enumerate(zip(comparison.methods, shown_colors(comparison.methods), strict=True))
    )
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in header)
    body = "".join(
        f'<tr data-method="{index}"><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return (
        f"<div data-needs-script hidden><fieldset><legend>Methods</legend>{boxes}</fieldset>"
        '<label>Names that hold <input type="search" id="search"></label>'
        '<p class="quiet" id="said" role="status"></p></div>'
        '<div class="wide" tabindex="0" role="region" aria-label="Results"><table id="results">'
        f"<caption>{escape(_DEFINITIONS)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _failures(failures: Sequence[tuple[str, str, str, str]]) -> str:
    if not failures:
        return "<p>Every policy was trained to its end.</p>"
    return table(["method", "task", "seed", "what became of it"], failures)


def _figure(caption: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
