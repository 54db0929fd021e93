"""Write every split of a generated corpus as Parquet."""

from lfp.organisms.generate import OPTIONS, generate_corpus
from lfp.running import job
from lfp.texts.corpora import headline, write_splits


def main() -> None:
    run = job.start(__doc__)
    settings, kind = run.settings, run.settings["organism"]
    options = {name: settings[name] for name in OPTIONS[kind]}
    frames, counts = generate_corpus(kind, settings["splits"], settings["seed"], options)
    write_splits(frames, counts, vars(run.output), run.stamp)
    run.finish(headline(frames))


if __name__ == "__main__":
    main()
