"""Write every split of a generated corpus as Parquet."""

from lfp.organisms.generate import generate_corpus
from lfp.running import job
from lfp.texts.corpora import headline, write_splits


def main() -> None:
    run = job.start(__doc__, outputs=["train", "test", "counts"])
    settings = run.settings
    names = {
        "reviews": ("words_per_class", "off_polarity", "neutral"),
        "help": ("noise", "preferred", "mixing"),
    }
    kind = settings["organism"]
    options = run.stage(*names.get(kind, names["help"]))
    frames, counts = generate_corpus(kind, settings["splits"], settings["seed"], options)
    write_splits(frames, counts, vars(run.paths), run.stamp)
    run.finish(headline(frames))


if __name__ == "__main__":
    main()
