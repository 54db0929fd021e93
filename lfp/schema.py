"""The JSON schema of a configuration, made from the classes of :mod:`lfp.settings`.

``python -m lfp.schema`` writes it to ``config/schema.yaml``, for readers and editors, and the
tables of keys into ``config/README.md``. The workflow reads neither file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from lfp.feedback.rewards import TASK_REWARDS
from lfp.finetune import MEASURES
from lfp.interventions.actions import ACTIONS, PATCH, WITH_STRENGTH
from lfp.interventions.arms import ARMS
from lfp.interventions.selectors import DIRECTIONS, SELECTORS
from lfp.probing.subjects import SUBJECTS
from lfp.sae.architectures import ARCHITECTURES
from lfp.settings import (
    CELL_STAGES,
    PRETRAINED,
    REQUIRED,
    STAGES,
    Cell,
    Classifier,
    Clean,
    Configuration,
    Corpus,
    Explainer,
    Files,
    Lora,
    Machine,
    Model,
    Mutual,
    Organism,
    Policy,
    Prices,
    Service,
    Settings,
    Shape,
    Source,
    Task,
)
from lfp.settings.fields import field_types, members, plain, settings_class
from lfp.sites import SITES
from lfp.steering.vectors import VECTORS

CONFIGURATIONS = Path(__file__).parent.parent / "config"
#: The export of the schema; the configurations stand beside it.
SCHEMA_PATH = CONFIGURATIONS / "schema.yaml"
README_PATH = CONFIGURATIONS / "README.md"
#: Names of kinds of things that settings choose from.
CHOICES: dict[str, tuple[str, ...]] = {
    "architectures": (*ARCHITECTURES, PRETRAINED),
    "sites": tuple(SITES),
    "subjects": tuple(SUBJECTS),
    "arms": tuple(ARMS),
    "actions": tuple(ACTIONS),
    "every_action": (*ACTIONS, *WITH_STRENGTH, PATCH),
    "selectors": tuple(SELECTORS),
    "directions": DIRECTIONS,
    "vectors": tuple(VECTORS),
    "rewards": TASK_REWARDS,
    "measures": MEASURES,
}
#: Names of corpora, models and the like: they are parts of paths.
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
#: Most characters of a name: a file is named by up to three, and file systems take 255 bytes.
NAME_LENGTH = 64
#: Classes that have a definition of their own, in the order of the export.
OBJECTS = (
    Corpus,
    Files,
    Clean,
    Model,
    Shape,
    Classifier,
    Organism,
    Service,
    Prices,
    Explainer,
    Machine,
    Task,
    Policy,
    Cell,
    Lora,
    Mutual,
    Source,
)
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
#: Keywords of JSON schema by the name of a bound.
_KEYWORDS = {
    "least": "minimum",
    "most": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
    "pattern": "pattern",
    "min_length": "minLength",
    "min_items": "minItems",
    "unique": "uniqueItems",
    "min_properties": "minProperties",
}
#: Bounds in words, for the tables.
_LIMITS = {
    "least": "at least",
    "most": "at most",
    "above": "above",
    "below": "below",
    "each_least": "each at least",
    "each_above": "each above",
    "each_below": "each below",
    "each_most": "each at most",
}
_BEGIN, _END = "<!-- keys: written by python -m lfp.schema -->", "<!-- end of keys -->"


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration."""
    top = _object(Configuration)
    definitions = {definition_name(cls): _object(cls) for cls in OBJECTS}
    definitions |= {
        "cell_settings": _stages(CELL_STAGES, "Settings by stage, for one model or cell."),
        "all_settings": _stages(
            STAGES,
            "Settings by stage; `contrasts` and `rewrites` belong to a task, `tables` to the whole"
            " run.",
        ),
    }
    definitions |= {name: _object(cls) for name, cls in STAGES.items()}
    definitions["range"] = {
        "description": "Smallest and largest number.",
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 2,
        "maxItems": 2,
        "ascending": True,  # a rule of lfp.configuration, which editors leave aside
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the Learned Feedback Patterns workflow",
        **top,
        "$defs": definitions,
    }


def definition_name(cls: type[Settings]) -> str:
    """Name of a class's definition in the schema."""
    return next((name for name, stage in STAGES.items() if stage is cls), cls.__name__.lower())


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node of the schema with the definition that it refers to."""
    if "$ref" not in node:
        return node
    target = schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _meaning(cls: type[Settings]) -> str:
    return " ".join((cls.__doc__ or "").split())


def _stages(stages: Mapping[str, type[Settings]], meaning: str) -> dict[str, Any]:
    return {
        "description": meaning,
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _reference(name) for name in stages},
    }


def _object(cls: type[Settings]) -> dict[str, Any]:
    """The schema of an object with the fields of `cls`."""
    fields, kinds = dataclasses.fields(cls), field_types(cls)
    nullable = any(
        cls in members(kind) and NoneType in members(kind)
        for owner in (*OBJECTS, *STAGES.values())
        for kind in field_types(owner).values()
    )
    node: dict[str, Any] = {
        "description": _meaning(cls),
        "type": ["object", "null"] if nullable else "object",
        "additionalProperties": False,
    }
    required = [field.name for field in fields if is_required(field)]
    if required:
        node["required"] = required
    if cls.sources:
        node["oneOf"] = [{"required": [name]} for name in cls.sources]
    if cls.needs:
        node["dependentRequired"] = {key: list(names) for key, names in cls.needs.items()}
    return node | {"properties": {field.name: _field(field, kinds[field.name]) for field in fields}}


def is_required(field: dataclasses.Field) -> bool:
    """Whether a configuration must give the field."""
    return field.default is REQUIRED and field.default_factory is dataclasses.MISSING


def _field(field: dataclasses.Field, kind: Any) -> dict[str, Any]:
    """The schema of one field, with its default and its meaning."""
    node = _value(kind, field.metadata)
    if field.default_factory is not dataclasses.MISSING:
        node["default"] = field.default_factory()
    elif not is_required(field) and not field.metadata.get("absent"):
        node["default"] = plain(field.default)
    return node | {"description": field.metadata["meaning"]}


def _value(kind: Any, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a value of the type `kind` within `bounds`."""
    cls, parts = settings_class(kind), members(kind)
    if "definition" in bounds or cls is not None:
        return _reference(bounds.get("definition") or definition_name(cls))
    if kind == tuple[int, int]:
        return _reference("range")
    node: dict[str, Any] = {"type": [_type_name(part) for part in parts]}
    if len(parts) == 1:
        node["type"] = node["type"][0]
    container = next((part for part in parts if get_origin(part) is not None), None)
    if container is None and "choices" in bounds:
        return {"enum": [*choices(bounds), *([None] if NoneType in parts else [])]}
    node |= {word: bounds[name] for name, word in _KEYWORDS.items() if name in bounds}
    if str in parts:
        node.setdefault("minLength", 1)  # nothing is named, found or said by an empty text
    if container is not None:
        node |= _container(container, bounds)
    return node


def _type_name(kind: Any) -> str:
    """The name in JSON schema of a type that is no union."""
    if get_origin(kind) is tuple:
        return "array"
    return "object" if get_origin(kind) is Mapping else _TYPES[kind]


def _container(kind: Any, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the items of a tuple, or of the keys and values of a mapping."""
    of_each = {
        name.removeprefix("each_"): bound
        for name, bound in bounds.items()
        if name.startswith("each_") or name == "choices"
    }
    item = get_args(kind)[0 if get_origin(kind) is tuple else 1]
    items = {} if item is Any else _value(item, of_each)
    if get_origin(kind) is tuple:
        contains = {"contains": {"const": bounds["contains"]}} if "contains" in bounds else {}
        return {"items": items} | contains
    node: dict[str, Any] = {"additionalProperties": items} if items else {}
    if "required_keys" in bounds:
        node["required"] = list(bounds["required_keys"])
    if "keys" in bounds:
        node["propertyNames"] = {"enum": list(bounds["keys"])}
    if settings_class(item) is not None:
        node["propertyNames"] = {"pattern": NAME_PATTERN, "maxLength": NAME_LENGTH}
    if "reserved" in bounds:
        reserved = {"not": {"enum": list(bounds["reserved"])}, "description": bounds["meaning"]}
        node["propertyNames"] = node.get("propertyNames", {}) | reserved
    return node


def choices(bounds: Mapping[str, Any]) -> tuple[str, ...]:
    """The values that a field allows: its own, or the names of the registry that it names."""
    named = bounds["choices"]
    return tuple(CHOICES[named]) if isinstance(named, str) else named


# --------------------------------------------------------------------------------------- the export


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: every definition stands for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def schema_text() -> str:
    """The text of ``config/schema.yaml``."""
    body = yaml.dump(
        schema(),
        Dumper=_Dumper,
        sort_keys=False,
        width=120,
        default_flow_style=None,
        allow_unicode=True,
    )
    return (
        f"# Written by python -m lfp.schema from the classes of lfp/settings; edit those.\n{body}"
    )


def _allowed(field: dataclasses.Field, kind: Any) -> str:
    """The values that a field allows, in words."""
    bounds, parts = field.metadata, members(kind)
    if "choices" in bounds:
        several = any(get_origin(part) is tuple for part in parts)
        kinds = [f"{'list of ' if several else ''}" + ", ".join(f"`{c}`" for c in choices(bounds))]
    elif "definition" in bounds:
        kinds = ["settings by stage"]
    else:
        kinds = [_kind_in_words(part) for part in parts if part is not NoneType]
    limits = [f"{words} {bounds[name]:.12g}" for name, words in _LIMITS.items() if name in bounds]
    null = " or null" if NoneType in parts else ""
    return ", ".join([" or ".join(kinds) + null, *limits])


def _kind_in_words(kind: Any) -> str:
    """A type that is no union, in words."""
    cls = settings_class(kind)
    if cls is not None:
        return f"[`{definition_name(cls)}`](#{definition_name(cls)})"
    if kind == tuple[int, int]:
        return "[smallest, largest]"
    if get_origin(kind) is tuple:
        return f"list of {_kind_in_words(get_args(kind)[0])}"
    if get_origin(kind) is Mapping:
        item = get_args(kind)[1]
        return "mapping" if item is Any else f"mapping to {_kind_in_words(item)}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}[kind]


def _cell_text(text: str) -> str:
    return text.replace("|", "\\|")


def table(cls: type[Settings]) -> str:
    """A table of the keys of `cls` in Markdown."""
    kinds = field_types(cls)
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        node = _field(field, kinds[field.name])
        default = f"`{json.dumps(node['default'])}`" if "default" in node else ""
        if is_required(field):
            default = "required"
        allowed = _allowed(field, kinds[field.name])
        meaning = field.metadata["meaning"]
        if "methods" in field.metadata:
            readers = ", ".join(f"`{method}`" for method in field.metadata["methods"])
            meaning += f" Read by {readers}."
        if field.metadata.get("limit"):
            meaning += " A change reruns nothing."
        cells = (f"`{field.name}`", allowed, default, meaning)
        rows.append("| " + " | ".join(_cell_text(cell) for cell in cells) + " |")
    return "\n".join(rows)


def tables() -> str:
    """The tables of all keys in Markdown, one for each class."""
    sections = [f"### Top level\n\n{_meaning(Configuration)}\n\n{table(Configuration)}"]
    for cls in (*OBJECTS, *STAGES.values()):
        sections.append(f"### `{definition_name(cls)}`\n\n{_meaning(cls)}\n\n{table(cls)}")
    return "\n\n".join(sections)


def with_tables(text: str) -> str:
    """`text` with the tables of keys between its markers; ValueError where a marker is missing."""
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(
            f"{README_PATH}: expected the lines {_BEGIN!r} and {_END!r} once each; put them where"
            " the tables of keys belong"
        )
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n\n{tables()}\n\n{_END}{rest.split(_END)[1]}"


def main() -> None:
    """Write the schema and the tables of keys."""
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
    README_PATH.write_text(with_tables(README_PATH.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
