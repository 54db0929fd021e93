"""Fetch a checkpoint at a pinned revision from the Hugging Face hub.

Safetensors, configuration and tokenizer are taken, and no code.
"""

from lfp.files import checkpoints, hub, vocabularies, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    repo, inner = run.settings["hub"], run.settings.get("folder")
    classifier, policy = (run.settings.get(kind, False) for kind in ("classifier", "policy"))
    names = [f"{inner}/{name}" if inner else name for name in checkpoints.FILES]
    folder = hub.snapshot(repo, run.settings["revision"], names)
    origin = f"{repo} at {run.settings['revision']}"
    if inner:
        folder = hub.last_folder(folder, inner, origin)
        origin = f"{origin}, {folder.name}"
    from lfp.models.loading import check_weights

    with writing.directory_aside(run.output.model, run.stamp) as target:
        checkpoints.take_checkpoint(folder, target, classifier, policy)
        vocabularies.check_tokens(target, named=origin)
        check_weights(target, origin, classifier)
    run.finish(origin)


if __name__ == "__main__":
    main()
