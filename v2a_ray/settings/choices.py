"""Sections of settings that depend on a choice: every kind has a small class of its own, and packages may add more.

ALIGNMENTS = Choices("kind", "none", "alignment")

@ALIGNMENTS.add
class Contrastive(AlignmentConfig):
    kind: Literal["contrastive"] = "contrastive"
    embedding_dim: Positive = 64

class Experiment(Settings):
    alignment: Annotated[AlignmentConfig, ALIGNMENTS]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from v2a_ray.settings.base import Settings, TrainingConfig

Kind = TypeVar("Kind", bound=Settings)
SIZES = frozenset(TrainingConfig.model_fields) | {"width"}
"""Settings that say how large a fit is. Given for a kind that has none of the sort they mean nothing, and are left out:
`alignment.num_steps` of a file holds for every method that trains an alignment."""


class Choices:
    """The kinds of a section, by the value of the field that tells them apart.

    Attributes:
        field: name of that field.
        default: its value where none is given.
        noun: what one is called in messages.
    """

    def __init__(self, field: str, default: str, noun: str) -> None:
        self.field, self.default, self.noun = field, default, noun
        self._kinds: dict[str, type[Settings]] = {}

    def add(self, kind: type[Kind]) -> type[Kind]:
        """Register a class under the values of its field. Raises ValueError when another one has such a value."""
        for name in get_args(kind.model_fields[self.field].annotation):
            if self._kinds.get(name, kind) is not kind:
                raise ValueError(f"there is a {self.noun} {name!r} already: {self._kinds[name].__module__}")
            self._kinds[name] = kind
        return kind

    def remove(self, name: str) -> None:
        """Forget one, so that another can take its name."""
        del self._kinds[name]

    def __call__(self, **settings: Any) -> Any:
        """The settings of a section, of the kind that they name. Raises pydantic's ValidationError."""
        return self._kinds[self.chosen(settings) or ""].model_validate(self._without_sizes(settings))

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __getitem__(self, name: str) -> type[Settings]:
        return self._kinds[name]

    def chosen(self, content: Any) -> str | None:
        """The kind that a section's content names, known or not; None for what is no section."""
        if isinstance(content, Settings):
            return str(getattr(content, self.field))
        return str(content.get(self.field, self.default)) if isinstance(content, Mapping) else None

    def with_field(self, key: str) -> list[str]:
        """The kinds that have the setting `key`."""
        return [name for name, kind in self._kinds.items() if key in kind.model_fields]

    def foreign(self, content: Any) -> set[str]:
        """Settings in a section's content that other kinds have and its own kind has not."""
        kind = self._kinds.get(self.chosen(content) or "")
        if kind is None or not isinstance(content, Mapping):
            return set()
        return {key for key in content if key not in kind.model_fields and self.with_field(key)}

    def _without_sizes(self, content: Any) -> Any:
        left_out = self.foreign(content) & SIZES
        return {key: value for key, value in content.items() if key not in left_out} if left_out else content

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The union of all kinds that are known when the model that holds the section is built."""
        kinds: dict[Any, CoreSchema] = {name: handler.generate_schema(kind) for name, kind in self._kinds.items()}
        union = core_schema.tagged_union_schema(kinds, self.chosen)
        return core_schema.no_info_before_validator_function(self._without_sizes, union)


def choices_of(field: FieldInfo) -> Choices | None:
    """The choice that a field of a model is."""
    return next((item for item in field.metadata if isinstance(item, Choices)), None)


def sections_by_choice(model: type[BaseModel]) -> dict[str, Choices]:
    """The fields of a model that are choices."""
    found = {name: choices_of(field) for name, field in model.model_fields.items()}
    return {name: choices for name, choices in found.items() if choices is not None}
