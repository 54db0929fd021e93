"""Reading a configuration: its check against the schema, the messages of mistakes, and defaults."""

from __future__ import annotations

import copy
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from lfp.registry import nearest
from lfp.schema import NAME_LENGTH, resolved, schema
from lfp.settings import STAGES, TASK_STAGES

#: Most values of a configuration, and most keys above one. Anchors that use each other give more.
MOST_VALUES, DEEPEST = 100_000, 40
#: The largest number without a point: every larger one loses digits as a float.
LARGEST = 2**53
#: Rules of the schema that tell least about a mistake: another mistake is reported before theirs.
_LAST = ("oneOf", "required", "dependentRequired")
_KINDS = {
    "object": "mapping", "array": "list", "string": "text", "integer": "whole number",
    "number": "number", "boolean": "true or false", "null": "null",
}  # fmt: skip
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


class ConfigurationError(ValueError):
    """A configuration cannot be run."""


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the defaults of the schema filled in; `config` itself is not changed.

    Raises ConfigurationError, with one line that names the key, on anything that the schema
    rejects.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            f"configuration: expected a mapping with the keys corpora, models, tasks and cells, got"
            f" {_shown(config)}"
        )
    _check_values(config)
    # An unknown key can also fail its parent's other rules, and a value of another type leaves a
    # key out that is needed: the most specific message comes first.
    errors = sorted(
        _Validator(schema()).iter_errors(dict(config)),
        key=lambda error: (
            error.validator != "additionalProperties",
            _LAST.index(error.validator) + 1 if error.validator in _LAST else 0,
            [str(part) for part in error.absolute_path],
        ),
    )
    if errors:
        raise ConfigurationError(_describe(errors[0]))
    return with_defaults(dict(config), schema())


def check_name(path: str, name: str, valid: Iterable[str]) -> None:
    """Raise ConfigurationError where `name`, at the key `path`, is not among the `valid` ones."""
    valid = list(valid)
    if name not in valid:
        hint = nearest(name, valid) if valid else "there is none: add one of that name"
        raise ConfigurationError(f"{path}: unknown name {name!r}; {hint}")


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


# --------------------------------------------------------------------------------- values and rules


def _check_values(config: Mapping[str, Any]) -> None:
    """Check that all values are text, finite numbers, booleans, null, lists and mappings.

    YAML has more: dates, sets, infinite numbers, keys that are no text, and anchors that hold
    themselves.
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((), config)]
    count = 0
    while todo:
        path, value = todo.pop()
        count += 1
        if len(path) > DEEPEST or count > MOST_VALUES:
            raise ConfigurationError(
                f"{dotted(path[:6])}: more than {MOST_VALUES} values, or more than {DEEPEST}"
                " keys above one; take out the anchor that holds itself or others many times"
            )
        if isinstance(value, Mapping):
            todo += [((*path, _key(path, key)), item) for key, item in value.items()]
        elif isinstance(value, list):
            todo += [((*path, str(index)), item) for index, item in enumerate(value)]
        elif fault := _fault_of(value):
            raise ConfigurationError(f"{dotted(path)}: {fault}")


def _key(path: tuple[str, ...], key: object) -> str:
    if isinstance(key, str) and not _fault_of(key):
        return key
    raise ConfigurationError(
        f"{dotted([*path, key])}: expected text as the key, got {_shown(key)}; put it into quotes"
        " (YAML reads numbers, dates, yes, no, on, off and null as other things)"
    )


def _fault_of(value: Any) -> str:
    """The reason why a value that holds no others cannot stand in a configuration, or nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, got {_shown(value)}; give a number, or null where it may"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"expected a number of at most 53 bits, got one of {value.bit_length()}"
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            return f"expected text that UTF-8 can write, without NUL, got {_shown(value)}"
        return ""
    if value is None or isinstance(value, int | float):
        return ""
    return (
        f"expected text, a number, true, false, null, a list or a mapping, got {_shown(value)} of"
        f" the type {type(value).__name__}; put it into quotes where it is text"
    )


def _matches(
    validator: Any, pattern: str, value: Any, node: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """The rule `pattern`, in which ``$`` is the end of the text, as JSON schema means it.

    Python's ``$`` also matches before a line break at the end.
    """
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _is_ascending(
    validator: Any, wanted: bool, value: Any, node: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """The rule `ascending`, which JSON schema does not have."""
    numbers = isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    if wanted and numbers and list(value) != sorted(value):
        yield ValidationError(f"{value!r} must be [smallest, largest]")


def _is_whole(checker: Any, value: Any) -> bool:
    """Whether a value is an integer: 3.0 and true are none, as no job could count with them."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = validators.extend(
    Draft202012Validator,
    validators={"pattern": _matches, "ascending": _is_ascending},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


# ----------------------------------------------------------------------------------------- messages


def dotted(path: Iterable[Any]) -> str:
    """The keys of a path with points between; one with other than plain characters is quoted."""
    plain = re.compile(r"[\w/-][\w./-]{0,99}")
    return ".".join(
        key if isinstance(key, str) and plain.fullmatch(key) else _shown(key) for key in path
    )


def _shown(value: Any) -> str:
    """A value as YAML names it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{hex(value)[:20]}..."  # Python writes no decimals of very large numbers
    return _SHORT.repr(value).encode(errors="replace").decode()


def _describe(error: ValidationError) -> str:
    """One line for a violation of the schema.

    It has the key's path, the fault, the expected value, and the remedy or the nearest valid name.
    """
    path = dotted(error.absolute_path)
    rule, value, wanted = error.validator, error.instance, error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        return _describe_name(error)
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in value if key not in known)
        colon = "; put a space behind the colon" if ":" in unknown else ""
        where = dotted([*error.absolute_path, unknown])
        if unknown in STAGES and list(error.absolute_path)[-1:] == ["settings"]:
            owner = "a task or of the file" if unknown in TASK_STAGES else "the file"
            return f"{where}: no effect here; move it to the `settings` of {owner}"
        return f"{where}: unknown key; {nearest(unknown, known)}{colon}"
    if rule == "required":
        missing = next(key for key in wanted if key not in value)
        hint = (
            "; a file with `cells` stands alone and needs all of its own, or another file in front"
            " of it or of --config that has the rest (--configfile config/config.yaml FILE)"
        )
        return (
            f"{f'{path}: ' if path else ''}{missing!r} is a required property"
            f"{_meaning(error.schema.get('properties', {}).get(missing))}{'' if path else hint}"
        )
    if rule == "oneOf":
        *first, last = [key for option in wanted for key in option["required"]]
        given = ", ".join(key for key in (*first, last) if key in value) or "none"
        return f"{path}: give exactly one source: {', '.join(first)} or {last}, got {given}"
    if rule == "dependentRequired":
        key, missing = next(
            (key, name)
            for key, names in wanted.items()
            for name in names
            if key in value and name not in value
        )
        return (
            f"{path}: {missing!r} is a dependency of {key!r}; add it"
            f"{_meaning(error.schema['properties'].get(missing))}"
        )
    if rule == "enum":
        return f"{path}: {_shown(value)} is not a valid value; {nearest(value, wanted)}"
    return f"{path}: {_fault(rule, value, wanted)}{_meaning(error.schema)}"


def _describe_name(error: ValidationError) -> str:
    """One line for a name or a key that a mapping does not allow."""
    name = str(error.instance)
    where = dotted([*error.absolute_path, name])
    if error.validator == "enum":
        return f"{where}: unknown key; {nearest(name, error.validator_value)}"
    if error.validator == "not":
        return f"{where}: the workflow uses this name; take another{_meaning(error.schema)}"
    return (
        f"{where}: expected a name of at most {NAME_LENGTH} letters, digits, `_`, `.` and `-` that"
        f" begins with a letter or a digit, got {_shown(name)} of {len(name)}; rename it, for names"
        " are parts of paths"
    )


def _fault(rule: str, value: Any, wanted: Any) -> str:
    """The fault of a value that breaks a `rule` of the schema, with what was expected."""
    shown = _shown(value)
    if rule == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        named = ", ".join(map(repr, kinds))
        words = " or ".join(_KINDS[kind] for kind in kinds)
        return f"{shown} is not of type {named}: expected {words}{_type_hint(value, kinds)}"
    if rule == "pattern":
        return f"{shown} does not match {wanted!r}"
    if rule == "contains":
        return f"{shown} must contain {wanted['const']!r}; add it"
    words = {
        "minimum": f"{shown} is less than the minimum of {wanted}",
        "maximum": f"{shown} is greater than the maximum of {wanted}",
        "exclusiveMinimum": f"{shown} is not above {wanted}",
        "exclusiveMaximum": f"{shown} is not below {wanted}",
        "minLength": f"{shown} is too short: expected at least {wanted} characters",
        "maxLength": f"{shown} is too long: expected at most {wanted} characters",
        "minItems": f"{shown} is too short: expected at least {wanted} items",
        "maxItems": f"{shown} is too long: expected at most {wanted} items",
        "minProperties": f"{shown} is empty: expected at least {wanted}",
        "uniqueItems": f"{shown} has non-unique elements; name each once",
        "ascending": f"expected [smallest, largest], got {shown}",
    }
    return words[rule]


def _type_hint(value: Any, kinds: Iterable[str]) -> str:
    """The remedy where a value is of another type than the schema's `kinds`."""
    if value is None:
        return "; give a value, or leave the key out"
    if isinstance(value, str) and {"integer", "number"} & set(kinds):
        number = re.fullmatch(r"([-+]?)(\d*)\.?(\d*)[eE]([-+]?)(\d+)", value)
        if number and "number" in kinds and (number[2] or number[3]):
            sign, whole, part, exponent, power = number.groups()
            written = f"{sign}{whole or 0}.{part or 0}e{exponent or '+'}{power}"
            return f"; write it as {written}: YAML takes it for text without a point and a sign"
        return "; give a number without quotes"
    if isinstance(value, str) and "boolean" in kinds:
        return "; write true or false without quotes"
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        return f"; write {int(value)}"
    if "string" in kinds and isinstance(value, int | float):
        return "; put it into quotes"
    if list(kinds) == ["array"] and not isinstance(value, Mapping):
        return f"; write a list: [{_shown(value)}]"
    return ""


def _meaning(node: Any) -> str:
    """What a key of the schema means, in brackets."""
    meaning = node.get("description", "") if isinstance(node, Mapping) else ""
    return f" ({meaning})" if meaning else ""
