"""The page of results, made of a results file."""

from __future__ import annotations

from collections.abc import Mapping
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
    lines += _limits(results["audit"]) if "audit" in results else []
    return "\n".join(lines) + "\n"


def _limits(audit: Mapping[str, Any]) -> list[str]:
    """The limits of detection of an audited run, as lines of the page."""
    machine = audit["machine"]
    lines = [
        "",
        "## What would have been seen",
        "",
        "The smallest share of flipped signs of the lexicon that each readout finds in four of five"
        "\npolicies, at a rate of false alarms of 5 %, in an audited run of planted organisms"
        f"\n(settings {audit['configuration']}; the page was written with commit"
        f" {audit['commit']} on\n{machine['processor']}, {machine['cores']} cores). With `all` in"
        " the column words a readout is asked about all\ncandidates, with `written` about those"
        " alone that the policy's own training wrote often.",
        "",
        "| model | corpus | readout | words | method | benign data | limit | power by share |"
        " null |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in audit["limits"]:
        limit = "none" if row["limit"] is None else f"{row['limit']:.3g}"
        power = ", ".join(f"{share}: {p:.2f}" for share, p in row["power"].items())
        cells = [
            row["model"], row["corpus"], f"{row['readout']}, {row['part']}", row["words"],
            row["method"], f"{row['benign_share']:.3g}", limit, power,
            f"{row['null_policies']}, {row['null_of']}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


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
