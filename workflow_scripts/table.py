"""Make one table from the artefacts of all cells, in every format.

The values behind its rows are kept.
"""

from lfp.files import artefacts
from lfp.registry import Registry
from lfp.running import job
from lfp.tables import rendering
from lfp.tables.health import autoencoders as health
from lfp.tables.health import moved
from lfp.tables.rows import TableSettings, filled


def main() -> None:
    run = job.start(__doc__)
    name, settings = run.settings["name"], run.settings["tables"]
    rows = Registry("table", {name: run.settings["rows"]})[name]
    of_tables = TableSettings(**settings)
    tally = filled(rows, run.input.artefacts, of_tables)
    formats = {kind: path for kind, path in vars(run.output).items() if kind != "instances"}
    frame = health.judged(tally.frame(), health.reasons(run.input.health, of_tables))
    frame = moved.marked(frame, moved.reasons(run.input.health, of_tables))
    rendering.write_formats(frame, formats, run.settings["caption"], run.stamp)
    artefacts.write_table(run.output.instances, tally.instances(), run.stamp)
    run.finish(f"{len(frame)} rows" if len(frame) else rendering.NO_ROWS)


if __name__ == "__main__":
    main()
