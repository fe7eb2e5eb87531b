"""Writes findings of checks to a file: JSON or Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v2a_ray.data.checks import CHECKS, Check
from v2a_ray.data.checks.findings import Finding
from v2a_ray.outputs import MARK, new_file
from v2a_ray.report.markdown import cell, table_lines

MARKDOWN_SUFFIXES = (".md", ".markdown")
SEVERITIES = ("error", "warning", "info")


def write_findings(path: Path, findings: Sequence[Finding], about: Mapping[str, Any]) -> None:
    """Write a report, Markdown if the name ends in .md and JSON otherwise. `about` describes the checked data.

    Raises StorageError: no space, or no permission.
    """
    is_markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    text = findings_markdown(findings, about) if is_markdown else findings_json(findings, about)
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def findings_json(findings: Sequence[Finding], about: Mapping[str, Any]) -> str:
    """A JSON object with the checked data, the number of findings per severity, and the findings."""
    content = {
        "made_by": MARK,
        **about,
        "counts": _counts(findings),
        "findings": [finding.to_dict() for finding in findings],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def findings_markdown(findings: Sequence[Finding], about: Mapping[str, Any]) -> str:
    """A table of findings, most severe first, and the meaning of each check that fired."""
    counts = _counts(findings)
    lines = ["# Checks of data", "", f"<!-- {MARK} -->", ""]
    lines += [f"- {name}: {cell(_plain(value))}" for name, value in about.items()]
    lines += [f"- findings: {', '.join(f'{counts[each]} {each}' for each in SEVERITIES)}", ""]
    if not findings:
        return "\n".join([*lines, "All checks passed.", ""])
    gravest_first = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    rows = [(each.severity, each.check, each.where, each.message, each.remedy) for each in gravest_first]
    lines += table_lines(("severity", "check", "where", "what", "remedy"), rows)
    fired = [CHECKS[name] for name in dict.fromkeys(each.check for each in findings) if name in CHECKS]
    lines += ["", "What they mean:", "", *(_meaning(check) for check in fired), ""]
    return "\n".join(lines)


def _meaning(check: Check) -> str:
    return f"- `{check.name}`: {check.meaning}."


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = Counter(str(finding.severity) for finding in findings)
    return {severity: counted[severity] for severity in SEVERITIES}


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} as {item}" for key, item in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
