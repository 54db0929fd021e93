"""Fetch a checkpoint at a pinned revision from the Hugging Face hub.

Safetensors, configuration and tokenizer are taken, and no code.
"""

from lfp.files import checkpoints, hub, vocabularies, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    repo, classifier = run.settings["hub"], run.settings.get("classifier", False)
    folder = hub.snapshot(repo, run.settings["revision"], checkpoints.FILES)
    origin = f"{repo} at {run.settings['revision']}"
    from lfp.models.loading import check_weights

    with writing.directory_aside(run.output.model, run.stamp) as target:
        checkpoints.take_checkpoint(folder, target, classifier)
        vocabularies.check_tokens(target, named=origin)
        check_weights(target, origin, classifier)
    run.finish(origin)


if __name__ == "__main__":
    main()
