"""Take a checkpoint from a local directory or a GGUF file into the results.

No file that could run code is taken.
"""

from lfp.files import artefacts, checkpoints, hub, vocabularies, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    path = run.settings["path"]
    classifier, policy = (run.settings.get(kind, False) for kind in ("classifier", "policy"))
    from lfp.models.loading import check_weights

    parts = hub.gguf_parts(path)
    named = str(parts[0]) if parts else path
    with writing.directory_aside(run.output.model, run.stamp) as target:
        if parts:
            from lfp.models import gguf

            with hub.whole_file(parts, target) as (file, origin):
                gguf.convert(file, target, named=parts[0].name)
            artefacts.write_json(target / "source.json", origin, run.stamp)
            checkpoints.check_values(target, named)
        else:
            checkpoints.take_checkpoint(path, target, classifier, policy)
        vocabularies.check_tokens(target, named=named)
        check_weights(target, named, classifier)
    run.sources += parts or checkpoints.checkpoint_files(path, classifier, policy)
    run.finish(f"from {', '.join(map(str, parts)) or path}")


if __name__ == "__main__":
    main()
