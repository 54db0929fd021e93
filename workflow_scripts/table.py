"""Make one table from the artefacts of all cells, in every format, and keep the values behind its rows."""

from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, rendering, tables
from workflow_scripts.lfp.tally import TableSettings


def main() -> None:
    run = job.start(__doc__, ["inputs*"], ["outputs*", "instances"], ["name", "caption"])
    tally = tables.TABLES[run.paths.name](run.paths.inputs, TableSettings(**run.settings))
    paths = {Path(path).suffix[1:]: path for path in run.paths.outputs}
    frame = tally.frame()
    rendering.write_formats(frame, paths, run.paths.caption, run.stamp)
    artefacts.write_table(run.paths.instances, tally.instances(), run.stamp)
    run.finish(f"{len(frame)} rows")


if __name__ == "__main__":
    main()
