"""A Gymnasium environment, with its settings and shifts, as a domain."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from v2a_ray.domains.own.edits import OWN_KINDS, ModelEdit, apply_edits, parse_own_shift, shift_edits
from v2a_ray.domains.own.environment import OwnInterface, adapt, make_bare, model_of, read_interface, source_of
from v2a_ray.domains.own.mjcf import MJCFRobot
from v2a_ray.domains.own.published_references import published_references
from v2a_ray.domains.own.robot_file import read_robot
from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.domains.shifts.kinds import Shift
from v2a_ray.domains.shifts.names import KINDS, combined_execution
from v2a_ray.errors import DomainError
from v2a_ray.settings.environment_names import (
    ROBOT_FILE,
    is_robot_file,
    join_name,
    label_of,
    split_name,
    with_absolute_file,
)


@dataclass(frozen=True)
class GymDomain:
    """Anybody's environment under given dynamics.

    Attributes:
        environment: an ID of gymnasium's registry, `package.module:Class`, or `mjcf:` and a robot's file.
        settings_json: its arguments and our options (`own.environment.OPTIONS`), as canonical JSON.
        shifts: in the order written.
    """

    environment: str
    settings_json: str = "{}"
    shifts: tuple[Shift, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The environment's arguments and our options."""
        content: dict[str, Any] = json.loads(self.settings_json)
        return content

    @property
    def robot(self) -> str:
        """The environment with its settings."""
        return join_name(self.environment, self.settings)

    @property
    def robot_spec(self) -> OwnInterface:
        """See `Domain`. Raises DomainError where the environment cannot be used."""
        return _interface(self.environment, self.settings_json)

    @property
    def shift_names(self) -> tuple[str, ...]:
        """See `Domain`."""
        return tuple(shift.name for shift in self.shifts)

    @property
    def shift_name(self) -> str:
        """`stock`, or the shifts joined by `+`."""
        return "+".join(self.shift_names) or "stock"

    @property
    def name(self) -> str:
        """Canonical name, for example `gym:Hopper-v5/gravity-0.5`."""
        return join_name(self.environment, self.settings, "+".join(self.shift_names))

    @property
    def slug(self) -> str:
        """The environment and its shifts as a file name; settings are in a digest at its end."""
        shifts, told = "+".join(self.shift_names), self.settings_json if self.settings else ""
        name = join_name(self.environment, {}, shifts)
        if is_robot_file(self.environment):
            name, told = f"mjcf_{label_of(name)}", self.environment + told
        readable = re.sub(r"[^\w.-]+", "_", name)
        return f"{readable}_{hashlib.sha256(told.encode()).hexdigest()[:8]}" if told else readable

    @property
    def identity(self) -> str:
        """See `Domain`: a robot's file, or a class's module, stands for its content."""
        if is_robot_file(self.environment):
            content = MJCFRobot(self.environment.removeprefix(ROBOT_FILE)).digest()
        else:
            content = source_of(self.environment)
        return f"{self.name} {content}" if content else self.name

    @property
    def references(self) -> Sequence[float] | None:
        """Returns that score 0 and 100, from the settings, the robot's file, or D4RL."""
        given: Sequence[float] | None = self.settings.get("references")
        if given is None and is_robot_file(self.environment):
            given = read_robot(Path(self.environment.removeprefix(ROBOT_FILE))).references
        return given or published_references(self.environment, self.settings)

    @property
    def execution(self) -> Execution:
        """See `Domain`. Raises DomainError where two shifts set the same field."""
        return combined_execution([shift for shift in self.shifts if shift.kind in KINDS])

    @property
    def base(self) -> GymDomain:
        """Itself."""
        return self

    @property
    def stock(self) -> GymDomain:
        """See `Domain`."""
        return replace(self, shifts=())

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """The environment as ours are: observations (O,), actions (A,) in [-1, 1], a time limit. Raises DomainError."""
        bare = make_bare(self.environment, self.settings, self.robot, render_mode)
        apply_edits(model_of(bare), [edit for _, edit in self._edits(bare)])
        return adapt(bare, self.robot_spec, self.execution)

    def describe(self) -> dict[str, Any]:
        """See `Domain`: with every number of the model that a shift changes."""
        bare = make_bare(self.environment, self.settings, self.robot)
        try:
            edits = [
                {"shift": shift.name, "edit": edit.place, "old": edit.old(model_of(bare)), "new": edit.value}
                for shift, edit in self._edits(bare)
            ]
        finally:
            bare.close()
        about = asdict(self.robot_spec) | {"name": self.name, "robot": self.robot, "settings": self.settings}
        return about | {"edits": edits, "execution": asdict(self.execution)}

    def edits(self) -> list[tuple[Shift, ModelEdit]]:
        """Every edit of the stock model, with its shift. Raises DomainError where one cannot be made."""
        bare = make_bare(self.environment, self.settings, self.robot)
        try:
            return self._edits(bare)
        finally:
            bare.close()

    def __str__(self) -> str:
        return self.name

    def _edits(self, bare: gymnasium.Env[Any, Any]) -> list[tuple[Shift, ModelEdit]]:
        physical = [shift.name for shift in self.shifts if OWN_KINDS[shift.kind.partition(":")[0]].edits]
        if not physical:
            return []
        if not self.robot_spec.is_mujoco:
            raise DomainError(
                f"{physical[0]} edits a MuJoCo model, and {self.robot} has none",
                where=self.name,
                remedy="action_noise-S and action_delay-D work everywhere; or an argument of the environment's own",
            )
        return shift_edits(model_of(bare), self.shifts, self.name)


@lru_cache(maxsize=256)
def _interface(environment: str, settings_json: str) -> OwnInterface:
    settings = json.loads(settings_json)
    name = join_name(environment, settings)
    bare = make_bare(environment, settings, name)
    try:
        return read_interface(name, settings, bare)
    finally:
        bare.close()


def parse_gym_domain(text: str) -> GymDomain:
    """Read the name of an environment's domain, and make it once. Raises DomainError for whatever is wrong with it."""
    try:
        environment, settings, shift_text = split_name(with_absolute_file(text))
    except ValueError as error:
        raise DomainError(
            str(error), where=f"domain {text!r}", remedy="gym:ENVIRONMENT?KEY=VALUE&KEY=VALUE/SHIFT"
        ) from None
    if not environment:
        raise DomainError("no environment is named", where=f"domain {text!r}", remedy="for example gym:Hopper-v5")
    names = [] if shift_text in ("", "stock") else shift_text.split("+")
    shifts = tuple(parse_own_shift(name, f"domain {text!r}") for name in names)
    canonical = json.dumps(settings, separators=(",", ":"), sort_keys=True)
    domain = GymDomain(environment, canonical, shifts)
    _require_references(domain.references, domain.name)
    _ = domain.robot_spec, domain.execution
    if shifts:
        _require_in_force(domain)
    return domain


def _require_in_force(domain: GymDomain) -> None:
    """Raise DomainError where a shift does not survive a reset and a step, because the environment undoes it."""
    environment: Any = domain.make()
    try:
        model = model_of(environment)
        edits = [edit for _, edit in domain.edits()]
        observation, _ = environment.reset(seed=0)
        observation, *_ = environment.step(np.zeros(domain.robot_spec.action_dim, np.float32))
        undone = [edit.place for edit in edits if edit.old(model_of(environment)) != edit.value]
        if undone or model is not model_of(environment):
            what = undone[0] if undone else "the model"
            raise DomainError(
                f"the environment sets {what} anew at every reset, which undoes the shift",
                where=domain.name,
                remedy="an argument of the environment that does the same",
            )
        if not np.isfinite(observation).all() or (edits and _diverged(environment.unwrapped.data)):
            raise DomainError("the simulation diverges at reset", where=domain.name, remedy="milder parameters")
    finally:
        environment.close()


def _diverged(data: mujoco.MjData) -> bool:
    from v2a_ray.domains.compiled_model import has_diverged

    return has_diverged(data)


def _require_references(values: Sequence[float] | None, where: str) -> None:
    if values is None:
        return
    is_pair = isinstance(values, list | tuple) and len(values) == 2
    if not is_pair or not all(isinstance(each, (int, float)) for each in values) or not values[0] < values[1]:
        raise DomainError(
            f"references are {values!r}",
            where=where,
            remedy="[RANDOM, EXPERT]: the returns that score 0 and 100, the second one larger",
        )
