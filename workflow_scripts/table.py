"""Make one table from the artefacts of all cells, in every format."""

from pathlib import Path

from workflow_scripts import job
from workflow_scripts.lfp import rendering, tables


def main() -> None:
    run = job.start(__doc__, ["name", "caption"], lists=["inputs", "outputs"])
    frame = tables.TABLES[run.paths.name](run.paths.inputs, tables.TableSettings(**run.settings))
    paths = {Path(path).suffix[1:]: path for path in run.paths.outputs}
    rendering.write_formats(frame, paths, run.paths.caption, run.stamp)


if __name__ == "__main__":
    main()
