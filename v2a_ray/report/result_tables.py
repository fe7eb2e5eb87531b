"""Tables of results: for the terminal, as Markdown, and as Parquet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from filecmp import cmp
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from rich.table import Table

from v2a_ray.engine.stage import needed_stages
from v2a_ray.errors import ConfigError
from v2a_ray.evaluation.interval import interquartile_mean, with_spread
from v2a_ray.experiments.experiment import ExperimentConfig, titled
from v2a_ray.experiments.sweep import task_of
from v2a_ray.files import replacing
from v2a_ray.report.markdown import cell, table_lines
from v2a_ray.settings.choices import Choices, choices_of
from v2a_ray.settings.measures import SCORE_TITLE, score_of_evaluation, score_title


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        labels: axis to value.
        evaluation: the last evaluation (`EpisodeResults.summary`); empty when the trial failed.
        seconds: wall time of the policy stage.
        status: `finished`, or `failed: reason`.
        artifacts: node to artifact key.
        curves_file: with the recorded metrics over update steps.
        labelled: see `Trial`.
    """

    labels: Mapping[str, str]
    config: ExperimentConfig
    evaluation: Mapping[str, Any]
    seconds: float | None
    status: str
    artifacts: Mapping[str, str]
    curves_file: Path | None
    labelled: frozenset[str] = frozenset()

    @cached_property
    def curves(self) -> pa.Table | None:
        """Recorded metrics over update steps."""
        # Threads cost more than they gain on so small a file.
        return pq.ParquetFile(self.curves_file).read(use_threads=False) if self.curves_file else None

    @cached_property
    def method(self) -> str:
        """The sweep's label of the method, or its name, with modifications that no label names."""
        return titled(self.labels.get("method", self.config.method), self._modifications, self.labelled)

    @property
    def method_title(self) -> str:
        """The method's name with all its modifications."""
        return titled(self.config.method, self._modifications)

    @cached_property
    def _modifications(self) -> dict[str, Any]:
        # Asked for twice, of thousands of trials.
        return self.config.modifications

    @property
    def task(self) -> str:
        """Everything but method and seed: a column of the table."""
        return task_of(self.labels) or self.config.name

    @property
    def score(self) -> float | None:
        """See `score_of_evaluation`; None of a policy that was not trained to its end."""
        return score_of_evaluation(self.evaluation) if self.status == "finished" else None


def render_cells(results: Sequence[TrialResult]) -> Table:
    """One row per method: mean ± standard deviation over seeds of every task, and the interquartile mean of all."""
    header, *rows = _cells(results)
    titles = dict.fromkeys(score_title(result.evaluation) for result in results if result.score is not None)
    title = f"{' or '.join(titles) or SCORE_TITLE}, mean ± standard deviation over seeds"
    table = Table(*header, title=title, caption=shared_seed(results))
    for row in rows:
        table.add_row(*row)
    return table


def cells_markdown(results: Sequence[TrialResult]) -> str:
    """The same table as Markdown."""
    header, *rows = _cells(results)
    note = shared_seed(results)
    return "\n".join([*table_lines(header, rows), *(["", cell(note)] if note else [])]) + "\n"


def shared_seed(results: Sequence[TrialResult]) -> str | None:
    """Notes on methods whose seeds differ only in the policy: their spread leaves out that of z, A and h."""
    cells: dict[tuple[str, str], list[ExperimentConfig]] = {}
    for result in results:
        if len(needed_stages(result.config)) > 1:
            cells.setdefault((result.method, result.task), []).append(result.config)
    sharing = {
        name: configs[0].upstream_seed
        for name, configs in cells.items()
        if len({config.seed for config in configs}) > 1 and len({config.upstream_seed for config in configs}) == 1
    }
    if not sharing:
        return None
    seeds = ", ".join(str(seed) for seed in sorted(set(sharing.values())))
    which = "" if len(sharing) == len(cells) else f" of {_named(sharing, cells)}"
    return f"All seeds{which} share what was fitted before the policy (upstream_seed={seeds}): ± is the policy's alone."


def _named(some: Collection[tuple[str, str]], cells: Collection[tuple[str, str]]) -> str:
    """Names of the given cells; a method's name alone if all its cells are among them."""
    words = []
    for method in dict.fromkeys(method for method, _ in some):
        tasks = [task for name, task in some if name == method]
        are_all = len(tasks) == sum(name == method for name, _ in cells)
        words.append(method if are_all else f"{method} in {' and '.join(tasks)}")
    return ", ".join(words)


def _cells(results: Sequence[TrialResult]) -> Iterator[list[str]]:
    tasks = list(dict.fromkeys(result.task for result in results))
    yield ["method", *tasks, "interquartile mean [95 %]"]
    for method in dict.fromkeys(result.method for result in results):
        cells = [[r for r in results if r.task == task and r.method == method] for task in tasks]
        yield [method, *(_cell(cell) for cell in cells), _aggregate(cells)]


def _aggregate(cells: Sequence[Sequence[TrialResult]]) -> str:
    """Aggregate over all tasks and seeds; none while a task has no score, or another kind of score than the others."""
    scores = [np.array([result.score for result in cell if result.score is not None]) for cell in cells]
    titles = {score_title(result.evaluation) for cell in cells for result in cell if result.score is not None}
    if not all(len(of_task) for of_task in scores) or len(titles) > 1:
        return "–"
    middle, low, high = interquartile_mean(scores)
    return f"{middle:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]")


def _cell(results: Sequence[TrialResult]) -> str:
    scores = [result.score for result in results if result.score is not None]
    text = f"{with_spread(scores, 1)} (n={len(scores)})" if scores else "–"
    others = [result.status.split(":")[0].split(" at ")[0] for result in results if result.score is None]
    return text + "".join(f", {others.count(status)} {status}" for status in dict.fromkeys(others))


def result_row(result: TrialResult) -> dict[str, Any]:
    """A trial as a row: labels, status, seconds, metrics, artifact keys, flattened configuration."""
    return {
        **{f"axis/{name}": value for name, value in result.labels.items()},
        "task": result.task,
        "method": result.method_title,
        "method_label": result.method,
        "status": result.status,
        "seconds": result.seconds,
        **{
            name: value if not isinstance(value, list) else json.dumps(value)
            for name, value in result.evaluation.items()
        },
        **{f"artifact/{name}": key for name, key in result.artifacts.items() if not name.startswith("data/")},
        **{f"config/{key}": value for key, value in _flatten(result.config.model_dump(mode="json"))},
    }


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """One table of rows that may have different columns; the file is the old one or the new one, whole.

    Returns whether it holds anything else than before.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    with replacing(path) as fresh:
        pq.write_table(pa.table(columns), fresh)
        return not (path.exists() and cmp(path, fresh, shallow=False))


def _column(values: list[Any]) -> pa.Array:
    """An Arrow array; a setting that may be a word or a number becomes text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}{key}.")
    elif isinstance(content, list):
        yield prefix[:-1], json.dumps(content)
    else:
        yield prefix[:-1], content


_HOLDERS = (None, UnionType)
"""Origins of annotations that hold one section: `Section`, `Section | None`."""


def settings_table(model: type[BaseModel], over: Mapping[str, Any], pattern: str = "") -> Table:
    """Every setting of a model with its default, or the value that `over` lays on it, and its meaning.

    Of a `pattern` only the keys that hold it, or that it matches with `*`. Raises ConfigError when there is none.
    """
    rows = list(_settings(model, over, ""))
    shown = [row for row in rows if pattern in row[0] or fnmatch(row[0], pattern)]
    if not shown:
        names = {each: key for key, _, _ in rows for each in (key, key.rsplit(".", 1)[-1])}
        close = [names[each] for each in get_close_matches(pattern, names)]
        remedy = f"did you mean {' or '.join(close)}?" if close else "`v2a config` prints all"
        raise ConfigError(f"no setting {pattern!r}", where="v2a config", remedy=remedy)
    table = Table("key", "default", "meaning", box=None)
    for row in shown:
        table.add_row(*row)
    return table


def _settings(model: type[BaseModel], over: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning. A section that depends on a choice shows the chosen kind, then what others have."""
    for name, field in model.model_fields.items():
        if choices := choices_of(field):
            yield from _kinds(choices, over.get(name, {}), f"{prefix}{name}")
            continue
        if inner := _section(field.annotation):
            yield f"{prefix}{name}", "", _first_line(inner)
            yield from _settings(inner, over.get(name, {}), f"{prefix}{name}.")
            continue
        if name in over:
            default = repr(over[name])
        elif field.is_required():
            default = "(required)"
        else:
            default = repr(field.get_default(call_default_factory=True))
        yield f"{prefix}{name}", default, " ".join((field.description or "").split())


def _kinds(choices: Choices, over: Mapping[str, Any], section: str) -> Iterator[tuple[str, str, str]]:
    chosen = choices[choices.chosen(over)]
    yield section, "", _first_line(chosen)
    yield from _settings(chosen, over, f"{section}.")
    shown = set(chosen.model_fields)
    for name in choices:
        kind = choices[name]
        own = {key: field for key, field in kind.model_fields.items() if key not in shown}
        if kind is not chosen:
            yield f"{section}.{choices.field}={name}", "", _first_line(kind)
        for key, field in own.items():
            if not choices_of(field):
                yield f"{section}.{key}", repr(field.default), " ".join((field.description or "").split())


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").split("\n")[0]


def _section(annotation: Any) -> type[BaseModel] | None:
    """The settings model that a field holds, or may hold."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel) and get_origin(annotation) in _HOLDERS), None)
