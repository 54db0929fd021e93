"""Reading a configuration: its check against the schema, the messages of mistakes, and defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from lfp.registry import nearest
from lfp.schema import resolved, schema
from lfp.settings import STAGES


class ConfigurationError(ValueError):
    """A configuration cannot be run."""


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the defaults of the schema filled in; `config` itself is not changed.

    Raises ConfigurationError, with one line that names the key, on anything that the schema
    rejects.
    """
    errors = sorted(
        Draft202012Validator(schema()).iter_errors(dict(config)),
        key=lambda error: list(map(str, error.absolute_path)),
    )
    # An unknown key can also fail its parent's other rules: the most specific message comes first.
    errors.sort(
        key=lambda error: (
            error.validator != "additionalProperties",
            error.validator == "dependentRequired",
        )
    )
    if errors:
        raise ConfigurationError(_describe(errors[0]))
    return with_defaults(dict(config), schema())


def check_name(path: str, name: str, valid: Iterable[str]) -> None:
    """Raise ConfigurationError where `name`, at the key `path`, is not among the `valid` ones."""
    if name not in valid:
        raise ConfigurationError(f"{path}: unknown name {name!r}; {nearest(name, valid)}")


def with_defaults(value: Any, node: Mapping[str, Any]) -> Any:
    """`value` with the defaults of schema `node` filled in, at every depth.

    `value` itself is not changed.

    Stages are left as they are written: their defaults come last in the order of resolution, not
    first.
    """
    if node.get("$ref", "").rsplit("/", 1)[-1] in STAGES:
        return value
    node = resolved(node)
    if isinstance(value, Mapping):
        properties = node.get("properties", {})
        extra = node.get("additionalProperties")
        filled = {
            key: copy.deepcopy(spec["default"])
            for key, spec in properties.items()
            if "default" in spec
        }
        filled |= value
        return {
            key: with_defaults(
                item, properties.get(key, extra if isinstance(extra, Mapping) else {})
            )
            for key, item in filled.items()
        }
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value


def _describe(error: ValidationError) -> str:
    """One line for a violation of the schema.

    It has the key's path, the fault, and the nearest valid name.
    """
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in error.instance if key not in known)
        return (
            f"{'.'.join(filter(None, [path, str(unknown)]))}: unknown key;"
            f" {nearest(unknown, known)}"
        )
    if error.validator == "required":
        return f"{path or 'configuration'}: {error.message}"
    if error.validator == "oneOf":
        *first, last = [key for option in error.validator_value for key in option["required"]]
        return f"{path}: give exactly one source: {', '.join(first)} or {last}"
    if error.validator == "enum":
        return (
            f"{path}: {error.instance!r} is not a valid value;"
            f" {nearest(error.instance, error.validator_value)}"
        )
    description = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    return f"{path}: {error.message}{f' ({description})' if description else ''}"
