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
_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


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
    config: Mapping[str, Any],
    files: Iterable[str | Path],
    read: Mapping[str, Any],
    assignments: Iterable[str] | None,
) -> dict[str, Any]:
    """`config` as Snakemake read it, with the values of the command line in their types.

    `files` are the configuration files behind it and `assignments` the words behind ``--config``,
    ``key=value`` each, which are laid over all files. Snakemake `read` them as a mapping; a word
    that `config` does not have as it was read is one of another workflow, which uses this one as a
    module, and says nothing here.

    Raises ConfigurationError for a key that is written twice, and for a number that YAML reads as
    another than it looks.
    """
    for path in files:
        check_keys(path)
    ours = {key for key, value in read.items() if _holds(config, {key: value})}
    words = [word for word in assignments or () if word.partition("=")[0] in ours]
    return _laid_over(config, command_line(words))


def check_keys(path: str | Path) -> None:
    """Raise ConfigurationError where the YAML or JSON file `path` has a key twice in a mapping.

    A number that YAML reads as another than it looks is an error as well.
    """
    text = Path(path).read_text(encoding="utf-8")
    if _is_json(text):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, which YAML refuses
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {_one_line(error)}") from error
    _check_numbers(root, str(path))
    if twice := next(_repeated(root), None):
        key, first, second = twice
        raise ConfigurationError(
            f"{path}: {key} is written twice, in line {first} and in line {second}, and the second"
            " would replace the first; put both into one, or remove one"
        )


def command_line(assignments: Iterable[str]) -> dict[str, Any]:
    """The values of ``key=value`` words, each read as YAML; an empty one is null.

    Raises ConfigurationError for a value that is not YAML, for a key that is written twice, and for
    a number that reads as another.
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
        _check_numbers(node, f"--config {key}")
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


def _holds(config: Any, value: Any) -> bool:
    """Whether `config` has the `value`, or all keys of it with theirs where it is a mapping."""
    if not isinstance(value, Mapping):
        return config == value
    return isinstance(config, Mapping) and all(
        key in config and _holds(config[key], part) for key, part in value.items()
    )


def _nodes(root: yaml.Node | None) -> Iterator[tuple[tuple[Any, ...], yaml.Node]]:
    """Every node of a document once, also one that anchors use again, with its path of keys."""
    todo: list[tuple[tuple[Any, ...], yaml.Node | None]] = [((), root)]
    visited: set[int] = set()
    while todo:
        path, node = todo.pop(0)
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        yield path, node
        if isinstance(node, yaml.SequenceNode):
            todo += [((*path, index), item) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            todo += [((*path, key.value), item) for key, item in node.value]


def _repeated(root: yaml.Node | None) -> Iterator[tuple[str, int, int]]:
    """The path of every key that its mapping has twice, with both lines, counted from 1.

    A merge key (``<<``) adds what is not written, so what it brings may be written again.
    """
    for path, node in _nodes(root):
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                line, identity = key.start_mark.line + 1, (key.tag, str(key.value))
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE and identity in lines:
                    yield dotted((*path, key.value)), lines[identity], line
                lines.setdefault(identity, line)


def _check_numbers(root: yaml.Node | None, where: str) -> None:
    """Raise ConfigurationError at a number that YAML reads otherwise than people: ``010`` is 8."""
    for path, node in _nodes(root):
        is_number = isinstance(node, yaml.ScalarNode) and node.tag in (_INTEGER, _FLOAT)
        if is_number and re.match(r"[-+]?0[0-7_]+\Z|.*:", node.value):
            place = ": ".join(filter(None, (where, dotted(path))))
            raise ConfigurationError(
                f"{place}: YAML reads {node.value} in base 8, or in base 60 with a colon; write the"
                " number without leading zeros and colons, or text in quotes"
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
