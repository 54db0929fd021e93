"""Fetch a data set's files at a pinned revision from the Hugging Face hub.

Its splits are written as Parquet.
"""

from lfp.files import hub
from lfp.running import job
from lfp.settings import Clean
from lfp.texts.corpora import headline, write_splits
from lfp.texts.readers import read_splits


def main() -> None:
    run = job.start(__doc__)
    repo, wanted = run.settings["hub"], run.settings["files"]
    patterns = [p for one in wanted.values() for p in ([one] if isinstance(one, str) else one)]
    kind = run.settings.get("repository", "dataset")
    folder = hub.snapshot(repo, run.settings["revision"], patterns, kind)
    files = hub.files_by_split(folder, wanted, repo)
    clean = Clean.of(run.settings.get("clean", {}))
    frames, counts = read_splits(files, **run.stage("columns", "test_share", "seed"), clean=clean)
    write_splits(frames, counts, vars(run.output), run.stamp)
    run.finish(headline(frames))


if __name__ == "__main__":
    main()
