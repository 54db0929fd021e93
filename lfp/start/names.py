"""Names of one's own models, corpora and tasks, as a configuration can have them."""

from __future__ import annotations

import re
from pathlib import Path

from lfp.checks import RESULT_NAMES
from lfp.schema import NAME_LENGTH


def plain_name(text: str, otherwise: str, path: str | Path | None = None) -> str:
    """The characters of `text` that a name may have, in small letters; `otherwise` without any.

    The name gets one more word where the results have a place of that name, and where the thing at
    `path` lies among the results: a run would write it in its own place.
    """
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-._").lower()[: NAME_LENGTH - 6]
    plain = plain.rstrip("-._") or otherwise
    inside = path is not None and Path(path).resolve().is_relative_to(Path("results").resolve())
    return f"{plain}-mine" if inside or plain in RESULT_NAMES else plain
