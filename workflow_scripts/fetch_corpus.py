"""Fetch a data set's files at a pinned revision from the Hugging Face hub and write its splits as Parquet."""

from workflow_scripts import job
from workflow_scripts.lfp import corpora, sources


def main() -> None:
    run = job.start(__doc__, outputs=["train", "test", "counts"])
    repo, wanted = run.settings["hub"], run.settings["files"]
    patterns = [p for own in wanted.values() for p in ([own] if isinstance(own, str) else own)]
    folder = sources.snapshot(repo, run.settings["revision"], patterns, "dataset")
    files = sources.files_by_split(folder, wanted, repo)
    frames, counts = corpora.read_splits(files, **run.stage("columns", "test_share", "seed"))
    corpora.write_splits(frames, counts, vars(run.paths), run.stamp)
    run.finish(corpora.headline(frames))


if __name__ == "__main__":
    main()
