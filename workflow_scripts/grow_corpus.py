"""Write every split of a generated corpus as Parquet."""

from workflow_scripts import job
from workflow_scripts.lfp import corpora


def main() -> None:
    run = job.start(__doc__, outputs=["train", "test", "counts"])
    settings = run.settings
    names = {"reviews": ("words_per_class", "off_polarity", "neutral"), "help": ("noise", "preferred", "mixing")}
    kind = settings["organism"]
    options = run.stage(*names.get(kind, names["help"]))
    frames, counts = corpora.generate_corpus(kind, settings["splits"], settings["seed"], options)
    corpora.write_splits(frames, counts, vars(run.paths), run.stamp)
    run.finish(corpora.headline(frames))


if __name__ == "__main__":
    main()
