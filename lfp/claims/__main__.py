"""Write the claims of a run as the committed results, or check a run against these.

python -m lfp.claims write results
python -m lfp.claims write results --audit RESULTS    # and the limits of runs of detection.yaml
python -m lfp.claims check results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lfp.claims.comparison import compared
from lfp.claims.origin import MADE, ROOT
from lfp.claims.page import page
from lfp.claims.runs import audit, results
from lfp.files.artefacts import read_json, write_json
from lfp.files.writing import aside


def write(folder: Path, docs: Path, audited: Sequence[Path] = ()) -> int:
    """Write the results of the run in `folder`, as data and as a page, below `docs`.

    Limits of detection are those of the `audited` runs; without any, those that were there stay.
    """
    of_run = results(folder)
    data, text = (docs / Path(name).name for name in MADE)
    kept = read_json(data).get("audits") if data.exists() else None
    if audits := [audit(run) for run in audited] or kept:
        of_run["audits"] = audits
    write_json(data, of_run, {})
    with aside(text) as temporary:
        temporary.write_text(page(of_run), encoding="utf-8")
    held = sum(claim["holds"] for claim in of_run["claims"])
    print(f"{data}: {held} of {len(of_run['claims'])} claims hold on {of_run['machine']}")
    return 0


def check(folder: Path, docs: Path) -> int:
    """Print the outcome of every claim; 1 where a committed claim flips or has no number here."""
    there, here = read_json(docs / Path(MADE[0]).name), results(folder)
    for name in ("machine", "commit", "configuration"):
        print(f"{name}: {there[name]} there, {here[name]} here")
    pairs = compared(there, here)
    print("\n".join(pair.line() for pair in pairs))
    lost = [pair.here["name"] for pair in pairs if pair.is_lost]
    if lost:
        print(f"no claims, for they flip or have no number: {', '.join(lost)}", file=sys.stderr)
    return int(bool(lost))


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the `arguments` name."""
    parser = argparse.ArgumentParser(prog="python -m lfp.claims", description=__doc__)
    parser.add_argument("command", choices=("write", "check"))
    parser.add_argument("results", type=Path, help="folder of a run's results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of results.json")
    parser.add_argument(
        "--audit", type=Path, nargs="+", default=(), help="folders of the results of organisms"
    )
    asked = parser.parse_args(arguments)
    if asked.command == "check":
        return check(asked.results, asked.docs)
    return write(asked.results, asked.docs, asked.audit)


if __name__ == "__main__":
    sys.exit(main())
