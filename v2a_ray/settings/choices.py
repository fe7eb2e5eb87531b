"""Sections of settings that depend on a choice: every kind has its own small class, and packages may add more.

ALIGNMENTS = Choices("kind", "none", "alignment")

@ALIGNMENTS.add
class ContrastiveConfig(AlignmentConfig):
    kind: Literal["contrastive"] = "contrastive"
    embedding_dim: Positive = 64

class Experiment(Settings):
    alignment: Annotated[AlignmentConfig, ALIGNMENTS]
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from v2a_ray.settings.base import Settings, TrainingConfig

Kind = TypeVar("Kind", bound=Settings)
SIZES = frozenset(TrainingConfig.model_fields) | {"width"}
"""Settings for the size of a fit. A kind without them ignores them, so `alignment.num_steps` in a file applies to every
method that trains an alignment."""
PLUGINS = "v2a_plugins"
"""Prefix of the module names of plugin files."""


class Choices:
    """The kinds of a section, by the value of the field that distinguishes them.

    Attributes:
        field: name of that field.
        default: its value if the section gives none.
        noun: word for a kind in messages.
    """

    def __init__(self, field: str, default: str, noun: str) -> None:
        self.field, self.default, self.noun = field, default, noun
        self._kinds: dict[str, type[Settings]] = {}

    def add(self, kind: type[Kind]) -> type[Kind]:
        """Register a class under the values of its field.

        Raises ValueError when another class has one of these values. A new version of a plugin replaces its own class.
        """
        for name in get_args(kind.model_fields[self.field].annotation):
            known = self._kinds.get(name)
            if known not in (None, kind) and not known.__module__.startswith(f"{PLUGINS}."):
                raise ValueError(f"{self.noun} {name!r} is there already, in {known.__module__}")
            self._kinds[name] = kind
        return kind

    def __call__(self, **settings: Any) -> Any:
        """The settings as an instance of the kind that they name. Raises pydantic's ValidationError."""
        return self.parse(settings)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __getitem__(self, name: str) -> type[Settings]:
        return self._kinds[name]

    def chosen(self, content: Mapping[str, Any]) -> str:
        """The kind that a section's content names; it may be unknown."""
        return str(content.get(self.field, self.default))

    def with_field(self, key: str) -> list[str]:
        """The kinds that have the setting `key`."""
        return [name for name, kind in self._kinds.items() if key in kind.model_fields]

    def foreign(self, content: Mapping[str, Any]) -> set[str]:
        """Keys in a section's content that other kinds have and its own kind lacks."""
        kind = self._kinds.get(self.chosen(content))
        if kind is None:
            return set()
        return {key for key in content if key not in kind.model_fields and self.with_field(key)}

    def parse(self, content: Any) -> Settings:
        """A section's content as an instance of the kind that it names. Raises pydantic's ValidationError."""
        if isinstance(content, Settings):
            return content
        if not isinstance(content, Mapping):
            raise PydanticCustomError("not_a_section", "expected settings")
        name = self.chosen(content)
        if name not in self._kinds:
            text = f"no {self.noun} is called {name!r}{closest(name, list(self._kinds))}"
            raise _placed(self.field, text, content.get(self.field))
        foreign = self.foreign(content)
        for key in sorted(foreign - SIZES):
            others = ", ".join(f"{self.field}={other}" for other in self.with_field(key))
            raise _placed(key, f"unknown key of {self.field}={name}; {others} would read it", content[key])
        return self._kinds[name].model_validate({key: value for key, value in content.items() if key not in foreign})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Look kinds up when a section is read, so that kinds that are added later are known too."""
        return core_schema.no_info_plain_validator_function(self.parse)


def nearest(name: str, names: Sequence[str]) -> str:
    """The known names that a wrong one is most like, or all of them, for a remedy."""
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(names)}"


def closest(name: str, names: Sequence[str]) -> str:
    """The known name closest to a wrong one, or all known names, for the end of a message."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(names)}"


def choices_of(field: FieldInfo) -> Choices | None:
    """The `Choices` of a model's field; None if it has none."""
    return next((item for item in field.metadata if isinstance(item, Choices)), None)


def _placed(key: str, text: str, value: Any) -> ValidationError:
    """An error at a key of a section. Pydantic adds the place of the section."""
    # Pydantic reads braces in a message as placeholders.
    escaped = text.replace("{", "{{").replace("}", "}}")
    details = InitErrorDetails(type=PydanticCustomError("wrong_choice", escaped), loc=(key,), input=value)
    return ValidationError.from_exception_data("settings", [details])
