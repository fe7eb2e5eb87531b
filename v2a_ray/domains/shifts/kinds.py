"""The kinds of dynamics shifts: how each parses its argument, what it changes, and its named shifts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np

from v2a_ray.domains.robot_spec import RobotSpec, scaled_ranges
from v2a_ray.domains.shifts.edits import Edit
from v2a_ray.errors import DomainError


@dataclass(frozen=True)
class Shift:
    """One change of a robot's dynamics.

    Attributes:
        kind: a key of `v2a_ray.domains.shifts.names.KINDS`, for example "gravity".
        part: the joint or body part ("footjnt", "torso"); the target for "otdf"; empty if the kind has only a number.
        level: "easy", "medium" or "hard"; a number; or empty for "otdf".
    """

    kind: str
    part: str = ""
    level: str | float = ""

    @property
    def name(self) -> str:
        """Canonical name, for example `kinematic-footjnt-easy`; parsing it gives this shift again."""
        level = self.level if isinstance(self.level, str) else np.format_float_positional(self.level, trim="-")
        return "-".join(part for part in (self.kind, self.part, level) if part)


class ShiftKind(ABC):
    """Base of all kinds."""

    @abstractmethod
    def forms(self, spec: RobotSpec) -> list[str]:
        """Patterns of this kind's names, for messages: `gravity-K`."""

    @abstractmethod
    def parse(self, argument: str, spec: RobotSpec, where: str) -> Shift:
        """Parse the part of a name after the first dash. Raises DomainError."""

    @abstractmethod
    def named(self, spec: RobotSpec) -> list[Shift]:
        """The shifts of this kind that are in the catalogue."""

    def edits(self, shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        """The edits of `shift` for the robot's `stock` specification, which is not changed."""
        return ()

    def execution(self, shift: Shift) -> dict[str, float]:
        """The fields of `Execution` that `shift` sets."""
        return {}


@dataclass(frozen=True)
class Number:
    """A continuous parameter and the values it may have.

    Attributes:
        quantity: name, with its unit.
        lowest, highest: bounds of its magnitude. Beyond them the simulation is unstable, or nothing can be learned.
        stock: the value that changes nothing. It is refused, because it would give stock a second name.
        signed: whether negative values exist.
        whole: whether it counts something.
    """

    quantity: str
    lowest: float
    highest: float
    stock: float | None = 1.0
    signed: bool = False
    whole: bool = False

    def parse(self, text: str, where: str, remedy: str) -> float:
        """The number in `text`. Raises DomainError with the bounds."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if value == self.stock:
            raise DomainError(f"{self.quantity} {text} is stock itself", where=where, remedy="leave this shift out")
        magnitude = abs(value) if self.signed else value
        if not self.lowest <= magnitude <= self.highest or (self.whole and value != int(value)):
            number = "whole number" if self.whole else "number"
            sign = " (or the negative of one)" if self.signed else ""
            raise DomainError(
                f"{self.quantity} {text!r} is not a {number} between {self.lowest:g} and {self.highest:g}{sign}",
                where=where,
                remedy=remedy,
            )
        return value


@dataclass(frozen=True)
class NumberKind(ShiftKind):
    """`KIND-NUMBER`, such as `gravity-0.5`.

    Attributes:
        kind: as in names.
        letter: placeholder for the number in messages.
        number: its meaning and bounds.
        levels: the named levels, unless `RobotSpec.named_levels` has others.
        model_edits: function of the number, the robot and its stock specification; None for a shift of execution.
        execution_field: the field of `Execution` that is set to the number, or empty.
    """

    kind: str
    letter: str
    number: Number
    levels: tuple[float, ...]
    model_edits: Callable[[float, RobotSpec, mujoco.MjSpec], Iterable[Edit]] | None = None
    execution_field: str = ""

    def forms(self, spec: RobotSpec) -> list[str]:
        return [f"{self.kind}-{self.letter}"]

    def parse(self, argument: str, spec: RobotSpec, where: str) -> Shift:
        example = Shift(self.kind, level=self._levels(spec)[1])
        return Shift(self.kind, level=self.number.parse(argument, where, f"for example {example.name}"))

    def named(self, spec: RobotSpec) -> list[Shift]:
        return [Shift(self.kind, level=level) for level in self._levels(spec)]

    def edits(self, shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        return tuple(self.model_edits(float(shift.level), spec, stock)) if self.model_edits else ()

    def execution(self, shift: Shift) -> dict[str, float]:
        value = float(shift.level)
        return {self.execution_field: int(value) if self.number.whole else value} if self.execution_field else {}

    def _levels(self, spec: RobotSpec) -> tuple[float, ...]:
        return spec.named_levels.get(self.kind, self.levels)


@dataclass(frozen=True)
class KinematicKind(ShiftKind):
    """`kinematic-PART-LEVEL`; the level may be a factor on the joint's range."""

    factor: Number = field(default_factory=lambda: Number("range factor", 1e-3, 2.0))

    def forms(self, spec: RobotSpec) -> list[str]:
        return ["kinematic-PART-LEVEL"]

    def parse(self, argument: str, spec: RobotSpec, where: str) -> Shift:
        part, level = _split(argument, spec.joints, where)
        if level in spec.joint_levels:
            return Shift("kinematic", part, level)
        levels = f"one of {', '.join(spec.joint_levels)} or a factor on the range"
        if not level[:1].isdecimal():
            raise DomainError(f"no level {level!r}", where=where, remedy=levels)
        return Shift("kinematic", part, self.factor.parse(level, where, levels))

    def named(self, spec: RobotSpec) -> list[Shift]:
        return [Shift("kinematic", part, level) for part in spec.joints for level in spec.joint_levels]

    def edits(self, shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        factor = spec.joint_levels[shift.level] if isinstance(shift.level, str) else shift.level
        return scaled_ranges(dict.fromkeys(spec.joints[shift.part], factor))(stock)


class MorphologyKind(ShiftKind):
    """`morph-PART-LEVEL`."""

    def forms(self, spec: RobotSpec) -> list[str]:
        return ["morph-PART-LEVEL"]

    def parse(self, argument: str, spec: RobotSpec, where: str) -> Shift:
        part, level = _split(argument, spec.morphologies, where)
        levels = spec.morphologies[part]
        if level not in levels:
            raise DomainError(f"no level {level!r}", where=where, remedy=f"one of {', '.join(levels)}")
        return Shift("morph", part, level)

    def named(self, spec: RobotSpec) -> list[Shift]:
        return [Shift("morph", part, level) for part, levels in spec.morphologies.items() for level in levels]

    def edits(self, shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        return spec.morphologies[shift.part][str(shift.level)]


class OTDFKind(ShiftKind):
    """The targets of OTDF (ICLR 2025). `otdf-gravity` is an alias of `gravity-0.5`."""

    def forms(self, spec: RobotSpec) -> list[str]:
        return ["otdf-gravity", *spec.published]

    def parse(self, argument: str, spec: RobotSpec, where: str) -> Shift:
        if argument == "gravity":
            return Shift("gravity", level=0.5)
        if f"otdf-{argument}" not in spec.published:
            raise DomainError(f"no target {argument!r}", where=where, remedy=f"one of {', '.join(self.forms(spec))}")
        return Shift("otdf", part=argument)

    def named(self, spec: RobotSpec) -> list[Shift]:
        return [Shift("otdf", part=name.removeprefix("otdf-")) for name in spec.published]

    def edits(self, shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        return spec.published[shift.name](stock)


def _split(argument: str, parts: Mapping[str, object], where: str) -> tuple[str, str]:
    part, _, level = argument.partition("-")
    if part not in parts:
        raise DomainError(f"no part {part!r}", where=where, remedy=f"one of {', '.join(parts)}")
    return part, level
