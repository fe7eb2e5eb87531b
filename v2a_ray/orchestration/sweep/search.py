"""Optuna's suggestions for Tune: one study per combination of the axes, kept in a file.

Tune's own searcher for Optuna keeps its state in a pickle and has a single study. Here each study is a journal of
Optuna, lines of JSON: a killed search continues where it stopped, first with the trials that were being trained.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import BaseJournalBackend, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from ray.tune.search import Searcher

from v2a_ray.checksums import append_sealed, read_sealed_lines
from v2a_ray.experiments.planner import Planner
from v2a_ray.experiments.sweep import Sweep, Trial, draw, suggested
from v2a_ray.files import copy_whole, replacing

_log = logging.getLogger(__name__)
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Suggestions(Searcher):
    """Hands out draws from each study in turn, until every study has `search.num_trials`."""

    def __init__(self, sweep: Sweep, folder: Path, common: Mapping[str, Any]) -> None:
        """`common` is part of every trial's settings."""
        super().__init__()
        assert sweep.config.search is not None
        self.sweep, self.search, self.common = sweep, sweep.config.search, dict(common)
        self.studies = [_open_study(sweep, folder, cell) for cell in range(len(sweep.trials))]
        self.interrupted = [study.get_trials(states=[TrialState.RUNNING]) for study in self.studies]
        self.planner = Planner()
        self.known: dict[tuple[int, int], Trial] = {}
        self.handed_out: dict[str, tuple[int, optuna.Trial]] = {}

    @property
    def num_left(self) -> int:
        """Number of draws that are not trained yet."""
        over = sum(len(study.get_trials(deepcopy=False, states=_OVER)) for study in self.studies)
        return self.search.num_trials * len(self.studies) - over

    def trials(self) -> list[Trial]:
        """The draws so far, as trials, in the order in which studies take turns, whichever session asks.

        Without draws that a kill interrupted and `suggest` has yet to complete.
        """
        for cell, study in enumerate(self.studies):
            for drawn in study.get_trials(deepcopy=False):
                # Planning a trial takes milliseconds, and this method is called whenever a trial ends.
                whole = self.search.space.keys() <= drawn.params.keys()
                if whole and (cell, drawn.number) not in self.known:
                    self.known[cell, drawn.number] = suggested(
                        self.sweep.trials[cell], drawn.number, drawn.params, self.planner
                    )
        return [self.known[place] for place in sorted(self.known, key=lambda place: place[::-1])]

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Settings of the next Tune trial."""
        cell = min(range(len(self.studies)), key=lambda cell: len(self._begun(cell)))
        study = self.studies[cell]
        resumed = next((cell for cell, left in enumerate(self.interrupted) if left), None)
        if resumed is not None:
            cell = resumed
            drawn = optuna.Trial(self.studies[cell], self.interrupted[cell].pop(0)._trial_id)
        elif len(self._begun(cell)) < self.search.num_trials:
            drawn = study.ask()
        else:
            return str(Searcher.FINISHED)
        # A kill may have interrupted the draw of a resumed trial; draw the missing values now.
        values = draw(drawn, self.search)
        self.handed_out[trial_id] = (cell, drawn)
        return {**self.common, "trials": [cell], "suggestion": {"number": drawn.number, "values": values}}

    def _begun(self, cell: int) -> list[optuna.trial.FrozenTrial]:
        return self.studies[cell].get_trials(deepcopy=False)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an evaluation before the end, for Optuna's use of trials that a scheduler ends."""
        _, drawn = self.handed_out[trial_id]
        (first, *more) = self.sweep.objectives
        if not more and first in result:
            drawn.report(result[first], int(result["step"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the end of a trial: its objectives, a failure, or an early end."""
        cell, drawn = self.handed_out.pop(trial_id)
        result = result or {}
        if error or "failed" in result:
            self.studies[cell].tell(drawn, state=TrialState.FAIL)
        elif "finished" in result:
            self.studies[cell].tell(drawn, [result[name] for name in self.sweep.objectives])
        else:
            self.studies[cell].tell(drawn, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journals hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journals hold everything."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher, and we never read that pickle.
        return {}


class SealedJournal(BaseJournalBackend):
    """Optuna's journal in a file with a checksum in every line; only the sweep's process writes it.

    Lines from the first damaged line on are dropped, because Optuna counts trials by lines. Their draws are made again,
    and policies that were already trained are found in the store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs: list[dict[str, Any]] = []
        if not path.exists():
            return
        lines = list(read_sealed_lines(path))
        self.logs = [line for line in itertools.takewhile(lambda line: line is not None, lines) if line is not None]
        if len(self.logs) < len(lines):
            aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
            copy_whole(path, aside)
            with replacing(path) as fresh:
                append_sealed(fresh, self.logs)
            if len(self.logs) < len(lines) - 1:  # else a kill tore the last one
                _log.warning(
                    "%s: line %d is damaged: what the search did since is done again; the file is set aside as %s",
                    path,
                    len(self.logs) + 1,
                    aside.name,
                )

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """See `BaseJournalBackend`."""
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See `BaseJournalBackend`."""
        append_sealed(self.path, logs)
        self.logs += logs


def _open_study(sweep: Sweep, folder: Path, cell: int) -> optuna.Study:
    assert sweep.config.search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (folder / "optuna").mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(SealedJournal(folder / "optuna" / f"{cell:04d}.jsonl")),
        study_name=" ".join(sweep.trials[cell].labels.values()) or sweep.name,
        directions=[_DIRECTIONS[direction] for direction in sweep.objectives.values()],
        load_if_exists=True,
    )
    # A resumed search must not repeat its first draws.
    entropy = [sweep.config.search.seed, cell, len(study.get_trials(deepcopy=False))]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    # Running trials count as if their scores were bad, so that parallel draws differ.
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return study
