"""Pack a run as an RO-Crate: tables, figures, their values, provenance, logs and the workflow that made them."""

from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import crates


def main() -> None:
    run = job.start(__doc__, ["provenance", "configfiles*"], ["output"], ["workflow"])
    size = crates.pack(run.paths.provenance, run.paths.workflow, run.paths.configfiles, run.paths.output)
    run.finish(f"{Path(run.paths.output).name}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
