"""The map of z on the page of results: one point per source trajectory, coloured by the part that it is from.

z is projected on its two directions of largest variance (principal components). At most `MAX_POINTS` trajectories of
all maps together are drawn, equally many of each part; the components and the table are of all.

Shape suffixes: E trajectories, Z dimension of z, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray

from v2a_ray.data.config import TARGET_LABEL
from v2a_ray.data.table.folder import part_files
from v2a_ray.errors import DataError, told
from v2a_ray.experiments.finished import PolicyRecord
from v2a_ray.report.figures import COLORS, MARKERS
from v2a_ray.report.page import table

Float = NDArray[np.float64]
MAX_MAPS = 6
MAX_POINTS = 3000
"""Of all maps together, so that the page stays small: a point is about a hundred bytes."""
LONGEST_NAME = 36
COLUMN = "column.parquet"
_MEANING = (
    "Each point is one trajectory of the source: z, which the modality encoder gives to its dynamics, on the two "
    "directions in which z varies most. Parts that lie apart are told apart; parts on top of each other have dynamics "
    "that z does not distinguish."
)
_SEPARATE = " Every source has an encoder of its own (modality.mode=per_source): only distances inside one mean much."


@dataclass(frozen=True)
class ModalityMap:
    """z of the trajectories of one mix of sources.

    Attributes:
        task: the task whose policies use it.
        latent_EZ: z of every trajectory, without the label that `per_source` puts first.
        part_E: the label of each trajectory's part.
        plane_E2: z on its first two principal components; the second is zero if z has one dimension.
        variance: parts of z's variance along both.
        separate: whether every source has an encoder of its own.
    """

    task: str
    latent_EZ: Float
    part_E: NDArray[np.str_]
    plane_E2: Float
    variance: tuple[float, float]
    separate: bool

    @property
    def parts(self) -> list[str]:
        """Labels of the parts, in alphabetical order."""
        return sorted(set(self.part_E.tolist()))

    def shown(self, most: int) -> NDArray[np.int64]:
        """Which trajectories are drawn: equally many of each part, spread evenly over it, in all about `most`."""
        each = max(1, most // len(self.parts))
        mine = [np.flatnonzero(self.part_E == part) for part in self.parts]
        kept = [rows[np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int)] for rows in mine]
        return np.concatenate(kept)

    def rows(self, drawn: NDArray[np.int64]) -> list[list[str]]:
        """What the map shows in numbers, a row per part; `drawn` are the trajectories that are shown."""
        centre = {part: self.latent_EZ[self.part_E == part].mean(axis=0) for part in self.parts}
        plane = {part: self.plane_E2[self.part_E == part] for part in self.parts}
        found = []
        for part in self.parts:
            mine = self.latent_EZ[self.part_E == part]
            spread = float(np.sqrt(((mine - centre[part]) ** 2).sum(axis=1).mean()))
            apart = {other: float(np.linalg.norm(centre[part] - at)) for other, at in centre.items() if other != part}
            near = min(apart, key=lambda other: apart[other]) if apart and not self.separate else ""
            count = f"{len(mine):,}", f"{int((self.part_E[drawn] == part).sum()):,}"
            x, y = np.round(plane[part].mean(axis=0), 2) + 0.0  # no minus zero
            found.append(
                [part, *count, f"({x:.2f}, {y:.2f})", f"{spread:.2f}", f"{near}, {apart[near]:.2f}" if near else "–"]
            )
        return found


def modality_section(
    records: Sequence[PolicyRecord], as_svg: Callable[[Callable[[], Figure], str], str]
) -> tuple[str, str] | None:
    """Heading and content of the section; None where no policy has a modality stage.

    One map per task, of its first seed. What cannot be read any more is said instead of its map. `as_svg` draws a
    figure for the page, with the text that stands for it.
    """
    firsts: dict[str, PolicyRecord] = {}
    for record in records:
        if _stages(record).keys() >= {"modality", "source"}:
            firsts.setdefault(record.task, record)
    if not firsts:
        return None
    heading = "Modality: z of the source trajectories"
    if find_spec("sklearn") is None:
        return heading, "<p>The map needs scikit-learn: pip install 'v2a_ray[diagnosis]'.</p>"
    chosen = list(firsts.items())[:MAX_MAPS]
    content = [f"<p>{escape(_MEANING)}</p>"]
    for task, record in chosen:
        try:
            found = read_map(task, record)
        except FileNotFoundError:
            content.append(f"<p>{escape(task)}: z is not in the artifact store any more.</p>")
            continue
        except (OSError, ValueError, KeyError, pa.ArrowException, DataError) as error:
            reason = error.reason if isinstance(error, DataError) else told(error)
            content.append(f"<p>{escape(f'{task}: z cannot be read: {reason}')}</p>")
            continue
        content.append(_figure(found, MAX_POINTS // len(chosen), as_svg))
    if len(firsts) > MAX_MAPS:
        content.append(f"<p>{len(firsts) - MAX_MAPS} more tasks have maps, which are left out.</p>")
    return heading, "".join(content)


def read_map(task: str, record: PolicyRecord) -> ModalityMap:
    """The map of a finished policy. Raises OSError, ArrowException, KeyError or DataError if its artifacts are gone."""
    from sklearn.decomposition import PCA

    stages, config = _stages(record), record.result["config"]["modality"]
    stored = pq.read_table(stages["modality"] / COLUMN)
    column = stored.column("z").combine_chunks()
    latent_EZ = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float64)
    latent_EZ = latent_EZ[:, -int(config["latent_dim"]) :]
    labels = _labels(stages["source"] / "table")
    # With `include_target`, what no source has is of the target.
    parts = np.asarray([labels.get(name, TARGET_LABEL) for name in stored.column("episode_id").to_pylist()])
    if not len(latent_EZ):
        raise DataError("there are no trajectories", where=str(stages["modality"]))
    plane_E2, variance = np.zeros((len(latent_EZ), 2)), np.zeros(2)
    count = min(2, *latent_EZ.shape)
    if np.ptp(latent_EZ, axis=0).any():
        fitted = PCA(count, svd_solver="full").fit(latent_EZ)
        plane_E2[:, :count], variance[:count] = fitted.transform(latent_EZ), fitted.explained_variance_ratio_
    separate = config.get("mode") == "per_source"
    return ModalityMap(task, latent_EZ, parts, plane_E2, (float(variance[0]), float(variance[1])), separate)


def _stages(record: PolicyRecord) -> dict[str, Path]:
    """The artifacts of a finished policy, by name of the stage."""
    return {stage["name"]: Path(stage["artifact"]) for stage in record.result.get("stages", ())}


def _labels(folder: Path) -> dict[str, str]:
    """The part of every trajectory of a table, by its id."""
    tables = [pq.read_table(file, columns=["episode_id", "source"]) for file in part_files(folder)]
    stored = pa.concat_tables(tables)
    return dict(zip(stored.column("episode_id").to_pylist(), stored.column("source").to_pylist(), strict=True))


def _figure(found: ModalityMap, most: int, as_svg: Callable[[Callable[[], Figure], str], str]) -> str:
    drawn = found.shown(most)
    caption = (
        f"{found.task}: {len(drawn):,} of {len(found.part_E):,} trajectories of {len(found.parts)} parts; the two "
        f"directions hold {sum(found.variance):.0%} of the variance of z.{_SEPARATE if found.separate else ''}"
    )
    header = ["part", "trajectories", "drawn", "centre on the map", "spread in z", "nearest part, distance in z"]
    return (
        f"<figure>{as_svg(lambda: _draw(found, drawn), caption)}<figcaption>{escape(caption)}</figcaption></figure>"
        f"<details><summary>The map in numbers</summary>{table(header, found.rows(drawn))}"
        '<p class="quiet">Spread: root mean square distance of a part\'s trajectories from their centre. Distance: '
        "between centres; parts that are nearer than their spread may overlap.</p></details>"
    )


def _short(part: str) -> str:
    """A part's name in the legend, which would else leave no room for the map; the table has all of it."""
    return part if len(part) <= LONGEST_NAME else f"{part[: LONGEST_NAME - 1]}…"


def _draw(found: ModalityMap, drawn: NDArray[np.int64]) -> Figure:
    figure = Figure(figsize=(8.6, max(4.2, 0.24 * len(found.parts) + 0.6)), layout="constrained")
    axes: Any = figure.subplots()
    for index, part in enumerate(found.parts):
        rows = drawn[found.part_E[drawn] == part]
        marker = MARKERS[(index + index // len(COLORS)) % len(MARKERS)]
        look = {"color": COLORS[index % len(COLORS)], "marker": marker, "linewidths": 0, "alpha": 0.6}
        axes.scatter(*found.plane_E2[rows].T, s=16, label=_short(part), **look)
    axes.set_aspect("equal", adjustable="datalim")
    for name, share, put in zip(("first", "second"), found.variance, (axes.set_xlabel, axes.set_ylabel), strict=True):
        put(f"{name} principal component of z ({share:.0%})")
    axes.grid(alpha=0.3)
    legend = figure.legend(
        loc="outside right upper", fontsize=8, title="part of the source", title_fontsize=8, alignment="left"
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return figure
