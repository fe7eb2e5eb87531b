"""The base class of all settings, the settings of a training loop, and common types of numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from v2a_ray.errors import ConfigError
from v2a_ray.outputs import require_name

Positive = Annotated[int, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Name = Annotated[str, AfterValidator(require_name)]
"""Text that becomes the name of a file or folder."""
DeviceName = Literal["auto", "cpu", "cuda"]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TrainingConfig(Settings):
    """Settings that every trained stage has."""

    needs_package: ClassVar[tuple[str, str] | None] = None
    """A module that computing it imports, and the extra of this package that installs it."""
    num_steps: Positive
    """Update steps."""
    batch_size: Positive
    """Samples per update step."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Learning rate of Adam."""
    checkpoint_interval_steps: Positive = 1000
    """Steps between checkpoints: a killed run repeats at most this many."""
    log_interval_steps: Positive = 100
    """Steps between recorded metrics."""
    num_threads: Positive = 1
    """CPU threads of one process. Results on CPU are bit-identical for equal seeds and equal threads."""
    device: DeviceName = "auto"
    """Where tables and networks are kept. `auto`: on a GPU if the stage has one, else on the CPU. `cuda` requires a
    GPU. A GPU draws other random numbers, which changes results as another seed would; CPU and GPU runs still share
    artifacts."""


def merge(base: Any, over: Any) -> Any:
    """`over` laid over `base`: mappings merge key by key, a mapping with integer keys edits a list, and any other value
    replaces."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    if (
        isinstance(base, list)
        and isinstance(over, Mapping)
        and over
        and all(str(key).isascii() and str(key).isdecimal() for key in over)
    ):
        edited = list(base)
        for key, value in over.items():
            if int(key) >= len(edited):
                raise ConfigError(
                    f"list index {key} is out of range: there are {len(edited)} items", where="command line"
                )
            edited[int(key)] = merge(edited[int(key)], value)
        return edited
    return over


def contradiction(content: Any, layer: Any, key: str = "") -> str | None:
    """The first dotted key whose value in `layer` differs from `content`; None if `content` agrees with all of it."""
    if isinstance(layer, Mapping) and isinstance(content, Mapping | list):
        there = content if isinstance(content, Mapping) else {str(i): item for i, item in enumerate(content)}
        parts = [(name, there.get(name, there.get(str(name))), value) for name, value in layer.items()]
    elif isinstance(layer, list) and isinstance(content, list) and len(layer) == len(content):
        parts = [(str(i), *pair) for i, pair in enumerate(zip(content, layer, strict=True))]
    else:
        return None if content == layer else key
    found = (contradiction(inner, value, f"{key}.{name}" if key else str(name)) for name, inner, value in parts)
    return next((name for name in found if name is not None), None)


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys: `{"policy": {"width": 64}}` is `{"policy.width": 64}`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def without(settings: Mapping[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested settings without the dotted `keys`."""
    return {
        name: without(value, keys, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if f"{prefix}{name}" not in keys
    }
