"""Take a checkpoint from a local directory or a GGUF file into the results.

No file that could run code is taken.
"""

from lfp.files import artefacts, hub, vocabularies, writing
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    path = run.settings["path"]
    parts = hub.gguf_parts(path)
    with writing.directory_aside(run.output.model, run.stamp) as target:
        if parts:
            from lfp.models import gguf  # it loads transformers, which a mere copy does not need

            with hub.whole_file(parts, target) as (file, origin):
                gguf.convert(file, target, named=parts[0].name)
            vocabularies.check_tokens(target, named=parts[0].name)
            artefacts.write_json(target / "source.json", origin, run.stamp)
        else:
            vocabularies.check_tokens(path)
            hub.take_checkpoint(path, target)
    run.finish(f"from {', '.join(map(str, parts)) or path}")


if __name__ == "__main__":
    main()
