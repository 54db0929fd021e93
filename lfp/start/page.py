"""A configuration as text: values with a comment each that says where they come from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

#: Columns of a line.
WIDTH = 99


@dataclass(frozen=True)
class Said:
    """A `value` of a configuration, and `why` it is that, in words."""

    value: Any
    why: str


def plain(tree: Any) -> Any:
    """The configuration without its comments."""
    if isinstance(tree, Said):
        return tree.value
    if isinstance(tree, Mapping):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def page(tree: Mapping[str, Any], header: str) -> str:
    """The text of a configuration with `header` as the comment at its top.

    Read as YAML it is ``plain(tree)``.
    """
    parts = ["\n".join(_comment(header, ""))]
    parts += ["\n".join(_lines({key: value}, "")) for key, value in tree.items()]
    return "\n\n".join(parts) + "\n"


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    """The lines of a mapping."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *_lines(value, f"{indent}  ")]
        elif isinstance(value, list):
            lines += [f"{indent}{key}:"]
            for item in value:
                lines += _commented(f"{indent}  - {_flow(plain(item))}", item)
        else:
            lines += _commented(f"{indent}{key}: {_flow(plain(value))}", value)
    return lines


def _commented(line: str, value: Any) -> list[str]:
    """A line with its comment behind it, or in front of it where both would be too wide."""
    why = _one_line(value.why) if isinstance(value, Said) else ""
    if not why:
        return [line]
    if len(line) + len(" # ") + len(why) <= WIDTH:
        return [f"{line} # {why}"]
    indent = line[: len(line) - len(line.lstrip())]
    return [*_comment(why, indent), line]


def _comment(text: str, indent: str) -> Sequence[str]:
    """A text as lines of a comment."""
    return textwrap.wrap(
        _one_line(text), WIDTH, initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ", break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _one_line(text: str) -> str:
    """A text as a comment can hold it: names of columns may have line breaks of any kind."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line)


def _flow(value: Any) -> str:
    """A value as YAML on one line, as :func:`yaml.safe_load` reads it back."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**20
    )
    return text.removesuffix("\n").removesuffix("\n...")
