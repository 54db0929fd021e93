"""Read a corpus from local files (JSONL, CSV, Parquet), shuffle it, and write its splits as Parquet."""

from workflow_scripts import job
from workflow_scripts.lfp import corpora, sources


def main() -> None:
    run = job.start(__doc__, outputs=["train", "test", "counts"])
    files = sources.files_by_split(".", run.settings["path"], "corpora")
    frames, counts = corpora.read_splits(files, **run.stage("columns", "test_share", "seed"))
    corpora.write_splits(frames, counts, vars(run.paths), run.stamp)
    run.finish(corpora.headline(frames))


if __name__ == "__main__":
    main()
