"""Gather the origin of every table, figure and folder of pages of a run in one file.

It goes back to corpora and checkpoints, and names the machine and the workflow's commit.
"""

import json

from lfp.claims.origin import commit, machine
from lfp.files import provenance
from lfp.files.writing import aside
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    targets = sorted(run.input.targets)
    artefacts = provenance.lineage(targets)
    record = {"targets": targets, "artefacts": artefacts, "versions": run.stamp["versions"]}
    record |= {"commit": commit(), "machine": machine()}
    with aside(run.output.provenance) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    run.finish(f"{len(artefacts)} artefacts behind {len(targets)} tables, figures and pages")


if __name__ == "__main__":
    main()
