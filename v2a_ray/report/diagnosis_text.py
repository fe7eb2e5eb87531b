"""Reports of a diagnosis: in the terminal, as `diagnosis.json`, and as `diagnosis.md` with plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from v2a_ray.diagnosis.alignment_audit import AlignmentAudit
from v2a_ray.diagnosis.diagnose import Diagnosis
from v2a_ray.diagnosis.evidence import NEAR_MISMATCH, Evidence
from v2a_ray.diagnosis.filter_audit import Contrast, FilterAudit, Selection
from v2a_ray.diagnosis.modality_audit import ModalityAudit
from v2a_ray.diagnosis.value_audit import ValueAudit
from v2a_ray.files import write_json, write_whole
from v2a_ray.outputs import prepare_results_folder
from v2a_ray.report.diagnosis_plots import draw_pictures
from v2a_ray.report.markdown import table_lines

_COLORS = {"good": "green", "fair": "yellow", "bad": "red", "unknown": "dim", "skipped": "dim"}
_TITLES = {
    "alignment": "Alignment: does h order transitions by how well they fit the target's dynamics?",
    "modality": "Modality: does z say which dynamics an episode came from?",
    "value": "Value: does one global advantage rank wrongly, and does z repair it?",
    "filter": "Filter: which transitions reach the policy?",
    "everything": "Nothing to diagnose",
}
_DEVIATES = 1e-3
_AGAINST = " / "


@dataclass(frozen=True)
class Section:
    """The report of one audit.

    Attributes:
        grade: `good`, `fair`, `bad`, `unknown` (not enough evidence) or `skipped`.
        sentences: results, and the thresholds for good and bad.
        rows: a table with its header first; may be empty.
    """

    name: str
    grade: str
    sentences: list[str]
    rows: list[list[str]]

    @property
    def title(self) -> str:
        """The question that the audit answers."""
        return _TITLES[self.name]


def sections(diagnosis: Diagnosis) -> list[Section]:
    """The report of every audit, in the order of the stages; skipped ones with their reason."""
    result = []
    for name in _TITLES:
        audit = diagnosis.audits.get(name)
        if audit is None:
            if name in diagnosis.skipped:
                result.append(Section(name, "skipped", [f"{_capital(diagnosis.skipped[name])}."], []))
            continue
        match audit:
            case AlignmentAudit():
                sentences, rows = list(_alignment(audit)), _alignment_rows(audit)
            case ModalityAudit():
                sentences, rows = list(_modality(audit)), []
            case ValueAudit():
                sentences, rows = list(_value(audit)), _value_rows(audit)
            case FilterAudit():
                sentences, rows = list(_filter(audit)), _filter_rows(audit)
        result.append(Section(name, audit.grade, sentences, rows))
    return result


def introduction(diagnosis: Diagnosis) -> list[str]:
    """Sentences on the run and the examined data."""
    config, evidence = diagnosis.run.config, diagnosis.evidence
    score = "no normalised score" if diagnosis.run.score is None else f"normalised score {diagnosis.run.score:.1f}"
    lines = [
        f"{config.name} · method {config.method_title} · seed {config.seed} · {score} in {config.target.domain}",
    ]
    return lines if evidence is None else [*lines, *_evidence(evidence)]


def _evidence(evidence: Evidence) -> Iterator[str]:
    yield f"{len(evidence.rows):,} of {evidence.source.num_transitions:,} source transitions examined."
    if evidence.unknown:
        yield f"Their true mismatch is unknown: {evidence.unknown}."
        return
    known = [name for name in evidence.domains if name in evidence.domain_mismatch]
    distances = ", ".join(f"{name} {evidence.domain_mismatch[name]:.3f}" for name in known)
    yield (
        f"True mismatch with the target's dynamics, median, in ordinary steps: {distances}. "
        f"Near (below {NEAR_MISMATCH}): {', '.join(evidence.near_domains) or 'no domain'}."
    )
    if evidence.control is not None and evidence.control > _DEVIATES:
        yield (
            f"WARNING: the target data deviate from the target's domain by {evidence.control:.3g}; either the domain "
            "is wrong, or no mismatch below can be trusted (check with `v2a data fidelity`)."
        )


def _alignment(audit: AlignmentAudit) -> Iterator[str]:
    yield (
        f"h ({audit.kind}) follows the true mismatch with rank correlation {_signed(audit.rank_correlation)} "
        "(1 is perfect, 0 chance; good from 0.5, bad below 0.2)."
    )
    yield (
        f"It puts the target's dynamics above others with probability {_number(audit.auc_same_dynamics)}, near domains "
        f"above far ones with {_number(audit.auc_near)} (0.5 is chance)."
    )
    if audit.auc_behavior is not None:
        yield (
            f"It separates behaviours of one domain with probability {audit.auc_behavior:.2f}; 0.5 is best, because "
            "their dynamics are the same."
        )
    by_behavior = audit.between_behaviors > audit.between_domains
    verdict = " h depends on the behaviour more than on the dynamics." if by_behavior else ""
    yield (
        f"Its variance is {audit.between_domains:.0%} between domains, {audit.between_behaviors:.0%} between "
        f"behaviours of a domain (bad if more than between domains) and {audit.inside_parts:.0%} inside parts.{verdict}"
    )


def _alignment_rows(audit: AlignmentAudit) -> list[list[str]]:
    header = ["part", "transitions", "mean h", "mean mismatch", "ρ inside"]
    rows = [
        [
            f"{part.domain} {part.behavior}",
            f"{part.num_transitions:,}",
            f"{part.mean_alignment:+.2f}",
            _number(part.mean_mismatch, 3),
            _signed(part.rank_correlation),
        ]
        for part in audit.parts
    ]
    return [header, *rows, ["target, held out", "", f"{audit.mean_held_out:+.2f}", "0.000", ""]]


def _modality(audit: ModalityAudit) -> Iterator[str]:
    if audit.separate_fits:
        yield (
            "Every source has its own encoder (modality.mode=per_source), and a probe can recognise the encoder even "
            "if dynamics are equal. So there is no grade; compare k-means with that of a shared fit."
        )
    if audit.probe_domain is None:
        yield "A linear probe needs two domains with two episodes each; the source has fewer."
    else:
        yield (
            f"A linear probe of z names the true domain of {audit.probe_domain:.0%} of held-out episodes (balanced "
            f"over {audit.num_domains} domains, {audit.num_episodes} episodes; chance is {audit.chance_domain:.0%}; "
            f"good from 90 %, bad below {(audit.chance_domain + 0.9) / 2:.0%})."
        )
    if audit.silhouette is not None:
        yield (
            f"Without labels, k-means recovers the domains with adjusted Rand index {_number(audit.adjusted_rand)} and "
            f"normalised mutual information {_number(audit.mutual_information)} (1 is perfect, 0 chance); silhouette "
            f"{audit.silhouette:.2f} (clear above 0.5)."
        )
    if audit.probe_behavior is not None:
        yield (
            f"The same probe names the behaviour with {audit.probe_behavior:.0%} (chance {audit.chance_behavior:.0%}). "
            "Information on behaviour is not dynamics, and splits the data of one domain needlessly."
        )


def _value(audit: ValueAudit) -> Iterator[str]:
    without, ceiling = audit.of_everything, audit.ceiling
    with_z = audit.conditioned
    yield (
        "Rank correlation with each domain's own oracle, mean over domains: "
        f"A(s, a) {_signed(without.mean_rank_correlation)}"
        + (f", A(s, a, z) {_signed(with_z.mean_rank_correlation)}" if with_z else "")
        + f"; two oracles that differ only in their seed have {_signed(ceiling.mean_rank_correlation)}, which is about "
        "the ceiling."
    )
    if audit.grade == "unknown" and with_z:
        yield "The oracles hardly agree with each other: a verdict needs more advantage steps."
    if with_z and audit.gain is not None:
        closed = "" if audit.closed is None else f", {audit.closed:.0%} of the way to the ceiling (good from 25 %)"
        yield f"z changes it by {_signed(audit.gain)}{closed}; less than 0.02 is within the variation of seeds."
        yield (
            f"Pairs from two domains ordered unlike the oracles: {_percent(without.discordant)} without z, "
            f"{_percent(with_z.discordant)} with z, {_percent(ceiling.discordant)} between oracles (50 % is chance)."
        )
    yield (
        f"Share of the best {audit.keep_fraction:.0%} of the mix that is also among the oracles' best: "
        f"{without.mixed_top_overlap:.0%} by A(s, a)"
        + (f", {with_z.mixed_top_overlap:.0%} by A(s, a, z)" if with_z else "")
        + f", {ceiling.mixed_top_overlap:.0%} between oracles (chance {audit.keep_fraction:.0%})."
    )


def _value_rows(audit: ValueAudit) -> list[list[str]]:
    candidates = {"A(s, a)": audit.of_everything, "A(s, a, z)": audit.conditioned, "oracle": audit.ceiling}
    present = {name: agreement for name, agreement in candidates.items() if agreement}
    header = ["domain", *(f"ρ {name}" for name in present), *(f"top {name}" for name in present)]
    rows = [
        [
            domain,
            *(_signed(each.rank_correlation[domain]) for each in present.values()),
            *(f"{each.top_overlap[domain]:.0%}" for each in present.values()),
        ]
        for domain in audit.domains
    ]
    return [header, *rows]


def _filter(audit: FilterAudit) -> Iterator[str]:
    if audit.rule == "none":
        yield "The method has no filter: the policy trains on all drawn transitions."
    if not audit.eligible_share:
        yield "The calibrated filter refuses the whole source: the policy trained on the target alone."
        return
    if audit.eligible_share < 1:
        yield f"{audit.eligible_share:.1%} of the source pass the calibrated threshold and are eligible."
    whole = audit.overall
    yield (
        f"{whole.acceptance:.0%} of the source pass. True mismatch: {_number(whole.mismatch.kept, 3)} for passing and "
        f"{_number(whole.mismatch.refused, 3)} for refused transitions; rank of the oracle advantage in its domain: "
        f"{_number(whole.oracle_rank.kept)} and {_number(whole.oracle_rank.refused)} (0.5 is chance)."
    )
    if audit.lift is not None:
        yield (
            f"Good transitions (near domain: {', '.join(audit.near_domains)}; oracle advantage above the domain's "
            f"median) are {_percent(audit.base_rate)} of the source and {_percent(audit.precision)} of the passing "
            f"ones, a lift of {audit.lift:.2f} (good from 1.5, bad below 1.1); {_percent(audit.recall)} of them pass."
        )
    elif not audit.near_domains:
        yield "No source domain is known to be near, so no transition counts as good."
    if audit.target_distance is not None:
        yield (
            f"Distance to the nearest target state in standard deviations: {_number(whole.distance.kept)} for passing "
            f"states, {_number(whole.distance.refused)} for refused ones, {audit.target_distance:.2f} for target "
            "states to the other target episodes; farther states are not covered by the target data."
        )
    yield "The columns do not change while the policy trains, so these shares do not change either."
    yield "In the table: means over passing / over refused transitions."


def _filter_rows(audit: FilterAudit) -> list[list[str]]:
    header = ["part", "source share", "passing share", "passes", "mismatch", "oracle rank", "distance", "return"]
    whole = [["all", *_selection(audit.overall)]]
    return [header, *([f"{part.domain} {part.behavior}", *_selection(part)] for part in audit.parts), *whole]


def _selection(part: Selection) -> list[str]:
    return [
        f"{part.drawn_share:.1%}",
        f"{part.kept_share:.1%}",
        f"{part.acceptance:.1%}",
        _pair(part.mismatch, 3),
        _pair(part.oracle_rank),
        _pair(part.distance),
        _pair(part.episode_return, 0),
    ]


def render(diagnosis: Diagnosis) -> Group:
    """The report for the terminal."""
    parts: list[RenderableType] = [Text(line) for line in introduction(diagnosis)]
    for section in sections(diagnosis):
        color = _COLORS[section.grade]
        parts += [Text(), Text.assemble((section.title, "bold"), " ", (section.grade, color))]
        parts += [Padding(Text(sentence), (0, 0, 0, 2)) for sentence in section.sentences]
        if section.rows:
            parts.append(_rich_table(section.rows))
    return Group(*parts)


def _rich_table(rows: Sequence[Sequence[str]]) -> Table:
    """A table with the two numbers of a cell on two lines, so that a row fits 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, name in enumerate(rows[0]):
        table.add_column(name.replace(" ", "\n") if index else name, justify="right" if index else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*(cell.replace(_AGAINST, "\n") for cell in row))
    return table


def markdown(diagnosis: Diagnosis, pictures: dict[str, str]) -> str:
    """The report as Markdown; `pictures` maps sections to file names."""
    lines = ["# Diagnosis", "", *(f"{line}\n" for line in introduction(diagnosis))]
    for section in sections(diagnosis):
        lines += [f"## {section.title}", "", f"**{section.grade}**", ""]
        lines += [f"- {sentence}" for sentence in section.sentences]
        if section.rows:
            header, *rows = section.rows
            lines += ["", *table_lines(header, rows)]
        if section.name in pictures:
            lines += ["", f"![{section.name}]({pictures[section.name]})"]
        lines.append("")
    return "\n".join(lines)


def write_diagnosis(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Write `diagnosis.json`, `diagnosis.md` and the pictures into `folder`; returns the files. Raises StorageError."""
    folder = prepare_results_folder(folder)
    pictures = draw_pictures(diagnosis, folder)
    write_json(folder / "diagnosis.json", diagnosis.to_dict())
    write_whole(folder / "diagnosis.md", markdown(diagnosis, {name: path.name for name, path in pictures.items()}))
    return [folder / "diagnosis.json", folder / "diagnosis.md", *pictures.values()]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _pair(contrast: Contrast, digits: int = 2) -> str:
    return f"{_number(contrast.kept, digits)}{_AGAINST}{_number(contrast.refused, digits)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
