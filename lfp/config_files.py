"""The text of a configuration: keys that are written twice, and values of the command line.

Snakemake reads YAML and JSON as dictionaries, where the last of two equal keys wins without a word,
and it leaves every number, list and boolean inside a value of ``--config`` as text. So the files
are read once more here, for their keys alone, and the command line is read as YAML, so that a value
has the type that it would have in a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lfp.configuration import ConfigurationError, dotted

_MERGE = "tag:yaml.org,2002:merge"


class _CommandLine(yaml.SafeLoader):
    """YAML in which ``1e-5`` is a number and ``None``, as Python writes null, is null.

    Profiles of Snakemake write the values of their key ``config`` as Python does.
    """


_CommandLine.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"),
    list("-+.0123456789"),
)
_CommandLine.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"None\Z"), ["N"])


def complete(
    config: Mapping[str, Any], files: Iterable[str | Path], assignments: Iterable[str] | None
) -> dict[str, Any]:
    """`config` as Snakemake read it, with the values of the command line in their types.

    `files` are the configuration files behind it and `assignments` the words behind ``--config``,
    ``key=value`` each, which are laid over all files.

    Raises ConfigurationError for a key that is written twice.
    """
    for path in files:
        check_keys(path)
    return _laid_over(config, command_line(assignments or ()))


def check_keys(path: str | Path) -> None:
    """Raise ConfigurationError where a mapping of the YAML or JSON file `path` has a key twice."""
    text = Path(path).read_text(encoding="utf-8")
    if _is_json(text):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, which YAML refuses
    try:
        twice = next(_repeated(yaml.compose(text, Loader=yaml.SafeLoader)), None)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if twice:
        key, first, second = twice
        raise ConfigurationError(
            f"{path}: {key} is written twice, in line {first} and in line {second}, and the second"
            " would replace the first; put both into one, or remove one"
        )


def command_line(assignments: Iterable[str]) -> dict[str, Any]:
    """The values of ``key=value`` words, each read as YAML; an empty one is null.

    Raises ConfigurationError for a value that is not YAML, and for a key that is written twice.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        if key in values:
            raise ConfigurationError(
                f"--config {key}: given twice; write one value, such as"
                f" '{key}={{ppo: {{steps: 3}}, dpo: {{steps: 4}}}}'"
            )
        loader = _CommandLine(text)
        try:
            node = loader.get_single_node()
            values[key] = None if node is None else loader.construct_document(node)
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"--config {key}: not valid YAML: {_one_line(error)}; quote the whole word for the"
                " shell and put a space behind every colon"
            ) from error
        if twice := next(_repeated(node), None):
            raise ConfigurationError(f"--config {key}: {twice[0]} is written twice; remove one")
    return values


def _laid_over(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `values` over it: mappings are merged, everything else is replaced."""
    merged = dict(config)
    for key, value in values.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _laid_over(below, value) if both else value
    return merged


def _repeated(root: yaml.Node | None) -> Iterator[tuple[str, int, int]]:
    """The path of every key that its mapping has twice, with both lines, counted from 1.

    A merge key (``<<``) adds what is not written, so what it brings may be written again.
    """
    todo: list[tuple[tuple[Any, ...], yaml.Node | None]] = [((), root)]
    visited: set[int] = set()
    while todo:
        path, node = todo.pop(0)
        if id(node) in visited:  # an anchor that is used again
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [((*path, index), item) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, item in node.value:
                todo.append(((*path, key.value), item))
                line, identity = key.start_mark.line + 1, (key.tag, str(key.value))
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE and identity in lines:
                    yield dotted((*path, key.value)), lines[identity], line
                lines.setdefault(identity, line)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
