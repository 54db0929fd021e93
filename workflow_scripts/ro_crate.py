"""Pack a run as an RO-Crate: tables, figures, their values, provenance, logs and the workflow that
made them.
"""

from pathlib import Path

from lfp.files import ro_crate
from lfp.running import job


def main() -> None:
    run = job.start(__doc__, ["provenance", "configfiles*"], ["output"], ["workflow"])
    size = ro_crate.pack(
        run.paths.provenance, run.paths.workflow, run.paths.configfiles, run.paths.output
    )
    run.finish(f"{Path(run.paths.output).name}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
