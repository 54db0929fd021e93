"""Fetch a checkpoint at a pinned revision from the Hugging Face hub.

Safetensors, configuration and tokenizer are taken, and no code.
"""

from lfp.files import hub, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    folder = hub.snapshot(run.settings["hub"], run.settings["revision"], hub.CHECKPOINT_FILES)
    from lfp.models.loading import load_tokenizer  # behind the download: it sets the hub offline

    with writing.directory_aside(run.output.model, run.stamp) as target:
        hub.take_checkpoint(folder, target)
        load_tokenizer(target)  # it checks that the model has a row for every token
    run.finish(f"{run.settings['hub']} at {run.settings['revision']}")


if __name__ == "__main__":
    main()
