"""Prompts for language-model services: files with a version, a schema for the answer, and a digest.

A prompt is ``{name}.yaml`` beside this module: ``version``, ``system`` and ``user`` text with
``$names`` to fill in, the JSON ``schema`` of the answer, and ``max_tokens`` for it. An example in a
prompt must not be a possible answer: an object that stands in the prompt counts as none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

import yaml

from lfp.files.canonical import canonical_json


@dataclass(frozen=True)
class Prompt:
    """One prompt; ``sha`` is the digest of all that a service sees of it."""

    name: str
    version: int
    system: str
    user: str
    schema: Mapping[str, Any]
    max_tokens: int

    @property
    def sha(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of texts, schema and limit."""
        parts = [self.version, self.system, self.user, self.schema, self.max_tokens]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:12]

    def messages(self, **values: object) -> list[dict[str, str]]:
        """The messages with `values` filled in; KeyError for a missing name.

        Values are not expanded.
        """
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": Template(self.user).substitute(values)},
        ]


@lru_cache
def load(name: str) -> Prompt:
    """The prompt `name`."""
    value = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name, **value)


def digests(*names: str) -> dict[str, str]:
    """Digests of the prompts `names`.

    They are part of the settings of the jobs that use them, so that an edit reruns these.
    """
    return {name: load(name).sha for name in names}
