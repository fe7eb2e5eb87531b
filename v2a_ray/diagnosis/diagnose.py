"""All audits of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.diagnosis.alignment_audit import AlignmentAudit, audit_alignment
from v2a_ray.diagnosis.evidence import Evidence, FinishedRun, load_evidence
from v2a_ray.diagnosis.filter_audit import FilterAudit, audit_filter
from v2a_ray.diagnosis.fits import Advantages, FitProgress, find_or_fit
from v2a_ray.diagnosis.modality_audit import ModalityAudit, audit_modality
from v2a_ray.diagnosis.value_audit import ValueAudit, audit_value

Float = NDArray[np.floating[Any]]
Audit = AlignmentAudit | ModalityAudit | ValueAudit | FilterAudit


@dataclass(frozen=True)
class Diagnosis:
    """The results of the audits.

    Attributes:
        run: the diagnosed run.
        audits: by name; empty for a run that used no source.
        skipped: maps the name of a skipped audit to the reason.
        evidence, advantages: the audited data, for plots.
    """

    run: FinishedRun
    audits: dict[str, Audit] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None
    advantages: Advantages | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: every number of every audit, and its grade."""
        config, evidence = self.run.config, self.evidence
        about: dict[str, Any] = {
            "name": config.name,
            "method": config.method_title,
            "seed": config.seed,
            "normalized_score_mean": self.run.score,
            "skipped": self.skipped,
        }
        if evidence is not None:
            about |= {
                "examined_transitions": len(evidence.rows),
                "source_transitions": evidence.source.num_transitions,
                "control_mismatch": evidence.control,
                "domain_mismatch": evidence.domain_mismatch,
                "near_domains": evidence.near_domains,
                "mismatch_unknown": evidence.unknown,
            }
        return about | {name: {"grade": audit.grade, **asdict(audit)} for name, audit in self.audits.items()}


def diagnose(run: FinishedRun, *, quick: bool, max_rows: int, progress: FitProgress) -> Diagnosis:
    """Audit a run. With `quick`, only advantages in the store are used, and audits that need others are skipped.

    Args:
        max_rows: maximum of source transitions to examine.
        progress: called during every fit.

    Raises:
        DataError: artifacts of the run are damaged.
    """
    if run.config.policy.data == "target":
        return Diagnosis(run, skipped={"everything": "the run trained on the target alone: it selected nothing"})
    evidence = load_evidence(run, max_rows)
    audits: dict[str, Audit] = {}
    skipped: dict[str, str] = {}
    if evidence.alignment is None:
        skipped["alignment"] = "the policy read no alignment column"
    else:
        audits["alignment"] = audit_alignment(evidence)
    if evidence.encoded is None:
        skipped["modality"] = "the run has no z"
    else:
        audits["modality"] = audit_modality(
            evidence.encoded,
            evidence.domain_of_episode,
            evidence.behavior_of_episode,
            run.config.upstream_seed,
            separate_fits=run.config.modality.mode == "per_source",
        )
    advantages = find_or_fit(evidence, quick, progress)
    oracles = [values[evidence.rows] for values in advantages.oracles]
    if len(oracles) == 2 and advantages.of_everything is not None:
        conditioned = advantages.conditioned
        audits["value"] = audit_value(
            advantages.of_everything[evidence.rows],
            None if conditioned is None else conditioned[evidence.rows],
            (oracles[0], oracles[1]),
            evidence.domain,
            run.config.policy.filter.keep_fraction,
        )
    else:
        skipped["value"] = "the advantages to compare are not in the store, and --quick fits none"
    audits["filter"] = audit_filter(evidence, np.mean(oracles, axis=0) if len(oracles) == 2 else None)
    return Diagnosis(run, audits, skipped, evidence, advantages)
