"""docs/claims.md against the committed results, and that a stale claim is found."""

from __future__ import annotations

import json

from benchmarks import check_claims

TEXT = check_claims.CLAIMS.read_text()
RESULTS = json.loads(check_claims.RESULTS.read_text())


def test_every_claim_holds() -> None:
    assert len(list(check_claims.rows(TEXT, "Ratios"))) > 10
    problems = [
        *check_claims.stale_ratios(TEXT, RESULTS),
        *check_claims.unlisted_pages(TEXT),
        *check_claims.missing_commands(TEXT),
    ]
    assert problems == []


def test_a_ratio_that_was_measured_again_is_stale() -> None:
    changed = [row | {"ratio": row["ratio"] + 0.5} for row in RESULTS]
    stale = list(check_claims.stale_ratios(TEXT, changed))
    assert len(stale) == len(list(check_claims.rows(TEXT, "Ratios"))) and "recorded" in stale[0]


def test_a_page_or_command_that_is_gone_or_missing_is_named() -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith("| docs/nine_sources.md"))
    (missing,) = check_claims.unlisted_pages(TEXT.replace(line, ""))
    assert missing.startswith("docs/nine_sources.md: states measurements")
    (gone,) = check_claims.missing_commands(TEXT.replace("nine_methods.yaml", "no_such_sweep.yaml"))
    assert "no_such_sweep" in gone
