"""A field of settings, with its meaning and its bounds, and the reading and writing of settings."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

#: The largest seed of NumPy's older generators, which libraries seed with the others.
LARGEST_SEED = 2**32 - 1
#: An id of the hub: an owner and a name; the oldest have a name alone.
HUB_ID = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)?$"
#: The default of a field that a configuration must give.
REQUIRED = dataclasses.MISSING
#: The default of a field that a configuration may leave out and that has no value then.
ABSENT = object()


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field with its `default`, its `meaning` with the unit, and its `bounds`.

    Parameters
    ----------
    default
        The value where a configuration gives none; ``REQUIRED`` and ``ABSENT`` stand for no value.
    meaning
        One phrase for readers of a configuration.
    bounds
        ``least``, ``most`` (inclusive), ``above``, ``below`` (exclusive) of a number, the same with
        ``each_`` in front for the items of a tuple and the values of a mapping; ``choices`` of a
        string or of a tuple's items, the values or the name of a registry (:mod:`lfp.schema`);
        ``pattern`` and ``min_length`` of a string; ``min_items``, ``contains`` and ``unique`` of a
            tuple; ``min_properties``, ``required_keys``, ``keys`` (all that are allowed) and
        ``reserved`` (names that are taken) of a mapping; ``definition``, the name of a definition
        of the schema that stands for the type; ``methods``, ``kinds`` and ``rewards``, what reads
        the field where not everything does; ``architectures``, those of autoencoders that do, by
        a word of :mod:`lfp.settings.dictionaries` (:mod:`lfp.effects`); ``limit``, whether the
        field only limits or paces a job, so that it changes nothing of one that ends well.
    """
    metadata = {"meaning": meaning, **bounds}
    if default is ABSENT:
        return dataclasses.field(default=None, metadata=metadata | {"absent": True})
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Unstamped:
    """A `value` among a job's settings that changes no result of a job that ends well.

    It reaches the job beside the others, reruns nothing, and is in no stamp.
    """

    value: Any


def parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `values` that decide a result, and those that are :class:`Unstamped`, also within."""
    deciding: dict[str, Any] = {}
    unstamped: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Unstamped):
            unstamped[key] = value.value
        elif isinstance(value, Mapping):
            deciding[key], within = parted(value)
            unstamped |= {key: within} if within else {}
        else:
            deciding[key] = value
    return deciding, unstamped


def joined(deciding: Mapping[str, Any], unstamped: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a job from the two parts that :func:`parted` makes."""
    within = {
        key: joined(deciding[key], value)
        for key, value in unstamped.items()
        if isinstance(deciding.get(key), Mapping)
    }
    return {**deciding, **unstamped, **within}


@dataclass(frozen=True)
class Settings:
    """Values under the names of a configuration, with their types and defaults."""

    #: Keys of which a configuration gives exactly one.
    sources: ClassVar[tuple[str, ...]] = ()
    #: Keys that a key brings with it.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The settings among `values`, which may have further keys.

        Lists become tuples, and mappings become settings where the field is of such a class.
        """
        kinds = field_types(cls)
        return cls(
            **{
                field.name: _typed(values[field.name], kinds[field.name])
                for field in dataclasses.fields(cls)
                if field.name in values
            }
        )

    def as_json(self) -> dict[str, Any]:
        """The settings as values of JSON: tuples as lists, settings within as dictionaries."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def for_jobs(self) -> dict[str, Any]:
        """Those of :meth:`as_json`, the limits among them :class:`Unstamped`."""
        limits = {f.name for f in dataclasses.fields(self) if f.metadata.get("limit")}
        return {
            name: Unstamped(value) if name in limits else value
            for name, value in self.as_json().items()
        }

    def read_by(self, method: str) -> dict[str, Any]:
        """Those of :meth:`for_jobs` that a method of fine-tuning reads (``methods`` of a field)."""
        fields = {field.name: field.metadata for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in self.for_jobs().items()
            if method in fields[name].get("methods", (method,))
        }


@cache
def field_types(cls: type[Settings]) -> dict[str, Any]:
    """The type of every field of `cls`."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def members(kind: Any) -> tuple[Any, ...]:
    """The types that a union allows, or the type `kind` alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def settings_class(kind: Any) -> type[Settings] | None:
    """The class of settings among the members of the type `kind`."""
    for part in members(kind):
        if isinstance(part, type) and issubclass(part, Settings):
            return part
    return None


def plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, Settings):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _typed(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    cls = settings_class(kind)
    return cls.of(value) if cls is not None and isinstance(value, Mapping) else value
