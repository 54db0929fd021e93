"""Make one table from the artefacts of all cells, in every format, and keep the values behind its
rows.
"""

from pathlib import Path

from lfp.files import artefacts
from lfp.registry import Registry
from lfp.running import job
from lfp.tables import rendering
from lfp.tables.rows import TableSettings


def main() -> None:
    """Make the table ``--name`` with the function ``--rows``."""
    run = job.start(__doc__, ["inputs*"], ["outputs*", "instances"], ["name", "rows", "caption"])
    rows = Registry("table", {run.paths.name: run.paths.rows})[run.paths.name]
    tally = rows(run.paths.inputs, TableSettings(**run.settings))
    paths = {Path(path).suffix[1:]: path for path in run.paths.outputs}
    frame = tally.frame()
    rendering.write_formats(frame, paths, run.paths.caption, run.stamp)
    artefacts.write_table(run.paths.instances, tally.instances(), run.stamp)
    run.finish(f"{len(frame)} rows")


if __name__ == "__main__":
    main()
