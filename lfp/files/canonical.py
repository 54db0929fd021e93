"""Equal values as equal text.

This stands apart from everything else, so that planning a run loads no library of science.
"""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
