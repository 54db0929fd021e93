"""Read a corpus from local files (JSONL, CSV, Parquet), shuffle it, and write its splits as Parquet."""

from workflow_scripts import job
from workflow_scripts.lfp import artefacts, corpora, sources


def main() -> None:
    run = job.start(__doc__, ["train", "test", "counts"])
    settings = run.settings
    files = {split: sources.matching_files(".", own, "corpora") for split, own in settings["path"].items()}
    how = (settings["columns"], settings["test_share"], settings["seed"])
    frames, counts = corpora.read_splits(files, *how)
    for split, frame in frames.items():
        artefacts.write_table(getattr(run.paths, split), frame, run.stamp)
    artefacts.write_json(run.paths.counts, counts, run.stamp)


if __name__ == "__main__":
    main()
