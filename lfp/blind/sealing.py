"""Names that tell nothing of what they name, and commitments to a truth that is kept elsewhere.

Whoever knows the seed can make every name and nonce again, so that it is the referee's secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from lfp.files.artefacts import ArtefactError
from lfp.files.canonical import canonical_json
from lfp.tables.change.cells import ChangeCell

#: Hexadecimal digits of a name.
DIGITS = 16
#: How a commitment is made, as the players read it.
METHOD = (
    "SHA-256 of the nonce (64 hexadecimal digits) and the canonical JSON of the truth (UTF-8, keys"
    " sorted, no spaces), one behind the other"
)
#: Keys of a task's truth file that are sealed.
_PLANTED = ("kind", "corpus", "flipped", "trigger", "openers")


def _keyed(seed: int, text: str) -> str:
    return hmac.new(str(seed).encode(), text.encode(), hashlib.sha256).hexdigest()


def blind_name(seed: int, kind: str, address: str) -> str:
    """The name of a policy, base or group, by its `kind` and its `address` in the results."""
    return _keyed(seed, f"{kind}/{address}")[:DIGITS]


def truth_of(cell: ChangeCell) -> dict[str, Any]:
    """What is sealed of a policy: its cell, and what its task's reward had planted."""
    return {"cell": cell.address} | {key: cell.truth.get(key) for key in _PLANTED}


def commitment(truth: Mapping[str, Any], nonce: str) -> str:
    """The commitment to a `truth`, which tells nothing of it without the `nonce`."""
    return hashlib.sha256(f"{nonce}{canonical_json(truth)}".encode()).hexdigest()


def sealed(truth: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A policy's `truth` with its nonce, as the referee keeps it."""
    return {"truth": truth, "nonce": _keyed(seed, f"nonce/{truth['cell']}")}


def check_seals(
    commitments: Mapping[str, str], kept: Mapping[str, Mapping[str, Any]], kept_in: str
) -> None:
    """Check that the truth that was kept is the one that the players hold commitments to.

    Parameters
    ----------
    commitments
        The commitment to every policy, by its blind name.
    kept
        The truth and the nonce of every policy, by the same names.
    kept_in
        The path of the file of `kept`, for messages.

    Raises
    ------
    ArtefactError
        Where a policy has a commitment or a truth alone, or the truth is another one.
    """
    if alone := sorted(set(commitments) ^ set(kept)):
        raise ArtefactError(
            f"{kept_in}: the policy {alone[0]} has a commitment or a truth, and not both; make the"
            " folder of the game and the truth again"
        )
    for name, entry in kept.items():
        if commitment(entry["truth"], entry["nonce"]) != commitments[name]:
            raise ArtefactError(
                f"{kept_in}: the truth of the policy {name} is not the one that was sealed: its"
                " commitment does not open; take the file that was written with the game"
            )
