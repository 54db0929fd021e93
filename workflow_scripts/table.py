"""Make one table from the artefacts of all cells, in every format, and keep the values behind its
rows.
"""

from pathlib import Path

from lfp.files import artefacts
from lfp.running import job
from lfp.tables import rendering
from lfp.tables.catalogue import TABLES
from lfp.tables.rows import TableSettings


def main() -> None:
    run = job.start(__doc__, ["inputs*"], ["outputs*", "instances"], ["name", "caption"])
    tally = TABLES[run.paths.name](run.paths.inputs, TableSettings.of(run.settings))
    paths = {Path(path).suffix[1:]: path for path in run.paths.outputs}
    frame = tally.frame()
    rendering.write_formats(frame, paths, run.paths.caption, run.stamp)
    artefacts.write_table(run.paths.instances, tally.instances(), run.stamp)
    run.finish(f"{len(frame)} rows")


if __name__ == "__main__":
    main()
