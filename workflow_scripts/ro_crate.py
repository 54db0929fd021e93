"""Pack a run as an RO-Crate.

It holds tables, figures, pages, values, provenance, logs and the workflow that made them.
"""

from pathlib import Path

from lfp.files import ro_crate
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    size = ro_crate.pack(
        run.input.provenance,
        run.settings["workflow"],
        run.settings["configfiles"],
        run.output.crate,
    )
    run.finish(f"{Path(run.output.crate).name}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
