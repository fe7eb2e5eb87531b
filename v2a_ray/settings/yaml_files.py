"""Loading settings: YAML files, `key.path=value` overrides, and errors that name the file and line.

Later layers win: defaults  <  the method's settings  <  YAML file  <  command line
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from v2a_ray.errors import ConfigError, told
from v2a_ray.settings.base import merge
from v2a_ray.settings.choices import Choices, choices_of, closest
from v2a_ray.settings.shipped import shipped_configs

__all__ = ["at", "merge", "nested", "parse_overrides", "read_yaml", "validate"]

Model = TypeVar("Model", bound=BaseModel)
MAX_NODES = 100_000
KeyPath = tuple[str | int, ...]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if it is missing, unreadable, malformed or repeats a key."""
    if path.exists() and not path.is_file():
        # Opening a FIFO blocks until another process writes to it.
        raise ConfigError("cannot be read: it is no file", where=str(path), remedy="give a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), remedy=f"give a YAML file, or one of {', '.join(shipped_configs())}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot be read: {told(error)}", where=str(path), remedy="save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {told(error)}", where=str(path)) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_expansion(root, str(path))
        content = yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not usable YAML: {told(error)}", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {problem}", where=where) from None
    if not isinstance(content, dict):
        raise ConfigError("expected `key: value` lines", where=str(path))
    _refuse_duplicates(root, path)
    return content


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`["policy.num_steps=100"]` to `{"policy": {"num_steps": 100}}`; values are read as YAML.

    A number in a path is a list index: `sources.0.num_transitions=500`.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator or not all(path.split(".")):
            raise ConfigError(f"expected key.path=value, got {assignment!r}", where="command line")
        try:
            _refuse_expansion(yaml.compose(value, Loader=yaml.SafeLoader), f"command line · {path}")
            # The later of two values of one path, at its place.
            values.pop(path, None)
            values[path] = yaml.safe_load(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not usable YAML: {told(error)}", where=f"command line · {path}") from None
        except yaml.YAMLError:
            raise ConfigError(f"the value is not valid YAML: {value!r}", where=f"command line · {path}") from None
    return nested(values)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"policy.width": 64}` to `{"policy": {"width": 64}}`. Raises ConfigError for a path that is none."""
    result: dict[str, Any] = {}
    for path, value in values.items():
        if not all(path.split(".")):
            raise ConfigError(f"expected key.path, got {path!r}", where="settings")
        section = result
        *parents, last = path.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{path} goes below a value that was set before", where="command line")
        section[last] = value
    return result


def at(content: Mapping[str, Any], key: str) -> Any:
    """The value at a path such as `policy.filter.keep_fraction`. Raises KeyError where there is none."""
    value: Any = content
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def validate(
    model: type[Model],
    raw: Mapping[str, Any],
    where: Path | None = None,
    remedy: str = "`v2a config` prints every key with its default and meaning",
    over: Mapping[str, Any] | None = None,
) -> Model:
    """`raw` as a settings model. Raises one ConfigError that names every wrong key, its value and the allowed values.

    The error gives the line in the file `where`, or "command line" for a key that `over` has set.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_describe(model, item, where, over or {}) for item in error.errors()]
        raise ConfigError(
            "\n".join(problems) if len(problems) > 1 else problems[0],
            remedy=remedy,
        ) from None


def _describe(model: type[BaseModel], item: Any, where: Path | None, over: Mapping[str, Any]) -> str:
    # Branches of a union appear in the location as extra names, e.g. ("reward_scale", "float").
    location: KeyPath = tuple(part for part in item["loc"] if not _is_union_branch(part))
    key = ".".join(str(part) for part in location)
    place = "command line" if where and _is_set_by(over, location, where) else _place(where, location)
    prefix = ": ".join(part for part in (place, key) if part) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{prefix}: unknown key{_suggestion(model, location)}"
    if item["type"] == "missing":
        return f"{prefix}: is missing"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], (dict, list)) else f" (got {item['input']!r})"
    return f"{prefix}: {message}{shown}"


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "constrained-", "function-")) or part in ("float", "int")
    )


def _suggestion(model: type[BaseModel], location: KeyPath) -> str:
    current: Any = model
    kinds: Choices | None = None
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part) if isinstance(part, str) else None
        if field is not None:
            current, kinds = _inner_model(field.annotation), choices_of(field)
        elif not isinstance(part, int):
            return ""
    if current is None:
        return ""
    names = (
        list(current.model_fields)
        if kinds is None
        else sorted({key for kind in kinds for key in kinds[kind].model_fields})
    )
    return closest(str(location[-1]), names)


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner_model(part))), None)


def _is_set_by(over: Mapping[str, Any], location: KeyPath, where: Path) -> bool:
    """Whether the value at `location` was set on the command line rather than in the file."""
    value: Any = over
    for part in location:
        if not isinstance(value, Mapping):
            return True
        if part not in value and str(part) not in value:
            return False
        value = value[part] if part in value else value[str(part)]
    # If both may have set a part of a section, the error points to the file, provided that it has the section.
    return not isinstance(value, Mapping) or _in_file(where, location)[1] < len(location)


def _place(where: Path | None, location: KeyPath) -> str:
    """file:line of the deepest part of `location` that the file has."""
    if where is None:
        return ""
    line, _ = _in_file(where, location)
    return f"{where}:{line}" if line else str(where)


def _in_file(where: Path, location: KeyPath) -> tuple[int | None, int]:
    """The line of the deepest part of `location` that the file has, and the number of parts that it has."""
    line: int | None = None
    node = yaml.compose(where.read_text(encoding="utf-8"), Loader=yaml.SafeLoader) if where.exists() else None
    for depth, part in enumerate(location):
        child = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, child = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            return line, depth
        node = child
    return line, len(location)


def _refuse_expansion(root: yaml.Node | None, where: str) -> None:
    """Raise ConfigError if aliases (`*name`) expand to more than `MAX_NODES` values. A recursive alias counts once."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node | None) -> int:
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in counts:
            counts[id(node)] = 1
            children = node.value if isinstance(node, yaml.SequenceNode) else itertools.chain(*node.value)
            counts[id(node)] = 1 + sum(map(count, children))
        return counts[id(node)]

    if count(root) > MAX_NODES:
        raise ConfigError(f"its aliases expand to more than {MAX_NODES:,} values", where=where)


def _refuse_duplicates(node: yaml.Node | None, path: Path, above: tuple[yaml.Node, ...] = ()) -> None:
    """Raise ConfigError for a key that appears twice, or an alias (`*name`) that refers to a section around it."""
    if node is None:
        return
    if any(node is parent for parent in above):
        raise ConfigError("an alias refers to a section around it", where=f"{path}:{node.start_mark.line + 1}")
    inside = (*above, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ConfigError(f"the key {key.value!r} appears twice", where=f"{path}:{key.start_mark.line + 1}")
            seen.add(key.value)
            _refuse_duplicates(value, path, inside)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value, path, inside)
