"""Fetch a data set's files at a pinned revision from the Hugging Face hub and write its splits as Parquet."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, corpora, sources


def main() -> None:
    run = job.start(__doc__, ["train", "test", "counts"])
    settings = run.settings
    wanted = settings["files"]
    patterns = [p for own in wanted.values() for p in ([own] if isinstance(own, str) else own)]
    folder = sources.snapshot(settings["hub"], settings["revision"], patterns, "dataset")
    files = {split: sources.matching_files(folder, own, settings["hub"]) for split, own in wanted.items()}
    how = (settings["columns"], settings["test_share"], settings["seed"])
    frames, counts = corpora.read_splits(files, *how)
    for split, frame in frames.items():
        artefacts.write_table(getattr(run.paths, split), frame, run.stamp)
    artefacts.write_json(run.paths.counts, counts, run.stamp)


if __name__ == "__main__":
    main()
