"""The page of results, made of a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfp.claims.comparison import number

_HEAD = """\
# Results

Made by `make results` from `results.json` beside it, never by hand. `make check-results` holds
another run against that file and says which claims hold on both machines: a claim that flips is no
claim. The claims and the rows of tables that they rest on are in
[lfp/claims/rows.yaml](../lfp/claims/rows.yaml), and verdicts in
[statistics.md](statistics.md#verdicts).
"""


def page(results: Mapping[str, Any]) -> str:
    """The page of `results` as Markdown."""
    machine, versions = results["machine"], results["versions"]
    libraries = ("python", "torch", "transformers", "trl", "numpy", "scipy", "scikit-learn")
    facts = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        "commit": results["commit"],
        "digest of all settings": results["configuration"],
        "versions": ", ".join(f"{n} {versions[n]}" for n in libraries if n in versions),
        "seeds of fine-tuning": "; ".join(
            f"{cell}: {', '.join(map(str, seeds))}" for cell, seeds in results["seeds"].items()
        ),
    }
    lines = [_HEAD, "| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]
    lines += [
        "",
        "`seeds` counts the seeds of fine-tuning behind an interval, and `truth` is where the claim"
        "\nhas the estimate.",
        "",
        "| claim | estimate | n | seeds | truth | verdict |",
        "|---|---|---|---|---|---|",
        *(_row(claim) for claim in results["claims"]),
    ]
    lines += _limits(results["audits"]) if results.get("audits") else []
    return "\n".join(lines) + "\n"


def _limits(audits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The limits of detection of audited runs, as lines of the page."""
    lines = [
        "",
        "## What would have been seen",
        "",
        "The smallest share of flipped signs of the lexicon that each readout finds in four of five"
        "\npolicies, at a rate of false alarms of 5 %, in audited runs of planted organisms. With"
        "\n`all` in the column words a readout is asked about all candidates, with `written` about"
        "\nthose alone that the policy's own training wrote often.",
        "",
        *(f"- Run {run}: {_made(audit)}." for run, audit in enumerate(audits, 1)),
        "",
        "| readout | words | run | model | corpus | method | benign data | limit | power by share |"
        " null |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [(run, row) for run, audit in enumerate(audits, 1) for row in audit["limits"]]
    for run, row in sorted(rows, key=lambda of: (_readout(of[1]), of[1]["words"], of[0])):
        limit = "none" if row["limit"] is None else f"{row['limit']:.3g}"
        power = ", ".join(f"{share}: {p:.2f}" for share, p in row["power"].items())
        cells = [
            _readout(row), row["words"], str(run), row["model"], row["corpus"], row["method"],
            f"{row['benign_share']:.3g}", limit, power, f"{row['null_policies']}, {row['null_of']}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _made(audit: Mapping[str, Any]) -> str:
    machine = audit["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores"
    return f"settings {audit['configuration']}, commit {audit['commit']}, on {where}"


def _readout(row: Mapping[str, Any]) -> str:
    return f"{row['readout']}, {row['part']}"


def _row(claim: Mapping[str, Any]) -> str:
    margin = f" ± {claim['margin']:g}" if claim["expected"] == "at" else ""
    cells = [claim["claim"], number(claim)]
    if claim["verdict"] is None:
        cells += ["", ""]
    else:
        cells += [f"{claim['n']} {claim['unit']}s", str(claim["seeds"])]
    cells.append(f"{claim['expected']} {claim['against']:g}{margin}")
    holds = "**holds**: " if claim["holds"] else ""
    cells.append(f"{holds}{claim['verdict'] or 'not in this run'}")
    return f"| {' | '.join(cells)} |"
