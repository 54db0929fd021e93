"""One registry for every kind of thing: names, and the places of their definitions.

An entry is written ``"lfp.sae.topk:TopK"`` and loaded when it is asked for, so that planning a run
reads the names without loading a library of science. The digest of code follows such strings as it
follows imports (:mod:`lfp.running.digest`). An entry may name a module outside this package.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the closest `valid` one, or all of them."""
    valid = [str(item) for item in valid]
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(valid))}"


class Registry(Mapping[str, Any]):
    """Things of one kind by name.

    Parameters
    ----------
    kind
        The kind's name in messages, as in ``architecture``.
    entries
        ``module:attribute`` by name.

    Raises
    ------
    ValueError
        On reading a name that is not there; the message has the nearest one.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind, self._entries = kind, dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise ValueError(f"{self.kind} {name!r} is unknown; {nearest(name, self._entries)}")
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def entry(self, name: str) -> str:
        """The entry of `name`, ``module:attribute``, without loading it."""
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
