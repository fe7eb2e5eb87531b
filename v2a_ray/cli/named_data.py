"""What options of `v2a data` say of columns and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v2a_ray.data.config import ActionBounds, Columns


def named_columns(text: str | None) -> Columns | None:
    """`--columns`. Raises ConfigError for what names none."""
    if not text:
        return None
    from v2a_ray.data.config import Columns
    from v2a_ray.settings.yaml_files import parse_overrides, validate

    remedy = f"one or more of: {', '.join(Columns.model_fields)}"
    return validate(Columns, parse_overrides([f"columns={text}"])["columns"], remedy=remedy)


def named_bounds(text: str | None) -> ActionBounds | None:
    """`--action-bounds`. Raises ConfigError for what are no bounds."""
    if not text:
        return None
    from pydantic import TypeAdapter, ValidationError

    from v2a_ray.data.config import ActionBounds
    from v2a_ray.errors import ConfigError
    from v2a_ray.settings.yaml_files import parse_overrides

    try:
        found = parse_overrides([f"bounds={text}"])["bounds"]
        bounds: ActionBounds = TypeAdapter(ActionBounds).validate_python(found)
    except ValidationError:
        remedy = "measured, declared, or [[LOW, HIGH], ...] with a pair for each action"
        raise ConfigError(f"no bounds: {text}", where="--action-bounds", remedy=remedy) from None
    return bounds
