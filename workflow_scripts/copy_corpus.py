"""Read a corpus from local files, shuffle it, and write its splits as Parquet.

Formats are JSON Lines, JSON, CSV and Parquet.
"""

from lfp.files import hub
from lfp.running import job
from lfp.settings import Clean
from lfp.texts.corpora import headline, write_splits
from lfp.texts.readers import read_splits


def main() -> None:
    run = job.start(__doc__)
    files = hub.files_by_split(".", run.settings["path"], "corpora")
    clean = Clean.of(run.settings.get("clean", {}))
    frames, counts = read_splits(files, **run.stage("columns", "test_share", "seed"), clean=clean)
    run.sources += [path for paths in files.values() for path in paths]
    write_splits(frames, counts, vars(run.output), run.stamp)
    run.finish(headline(frames))


if __name__ == "__main__":
    main()
