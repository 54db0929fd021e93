"""Hold this run against another one: claims and rows of tables side by side.

What moved beyond its interval stands first.
"""

from lfp.claims.moves import DISJOINT
from lfp.claims.two_runs import comparison_page, read_run, two_runs
from lfp.files.artefacts import write_table
from lfp.files.writing import aside
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    here = read_run(run.input.tables, [run.input.provenance])
    there = read_run(run.input.other, run.input.other_provenance)
    runs = two_runs(here, there, run.settings["confidence"])
    rows = runs.moves.rows
    texts = {
        run.output.html: comparison_page(runs, ("results", run.settings["other"])),
        run.output.csv: rows.to_csv(index=False, lineterminator="\n"),
    }
    for output, text in texts.items():
        with aside(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_table(run.output.parquet, rows, run.stamp)
    disjoint = (rows["move"] == DISJOINT).sum()
    run.finish(f"{len(rows)} rows, {disjoint} with intervals that do not overlap")


if __name__ == "__main__":
    main()
