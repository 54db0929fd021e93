"""Gather where every table and figure of a run came from, back to its corpora and checkpoints, in
one file.
"""

import json

from lfp.files import provenance
from lfp.files.writing import aside
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, ["inputs*"], ["output"])
    artefacts = provenance.lineage(run.paths.inputs)
    with aside(run.paths.output) as temporary:
        found = {
            "targets": sorted(run.paths.inputs),
            "artefacts": artefacts,
            "versions": run.stamp["versions"],
        }
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    run.finish(f"{len(artefacts)} artefacts behind {len(run.paths.inputs)} tables and figures")


if __name__ == "__main__":
    main()
