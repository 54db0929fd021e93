"""Explain the best matched features of the small autoencoders offline, classify them as related or
not, and cut the held-out excerpts that explanations are scored on."""

from pathlib import Path

from lfp.explaining import classification
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Explanations


def main() -> None:
    inputs = ["policy", "corpus", "held-out", "lexicon", "matches", "autoencoders*"]
    run = job.start(__doc__, inputs, ["output", "excerpts", "evidence"])
    paths, device = run.paths, run.device
    from lfp.explaining.heuristic import ResumePoints, explain_cell
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.sae import autoencoder

    saes = {int(Path(path).parent.name.removeprefix("layer")): path for path in paths.autoencoders}
    points = {"words": paths.output, "answers": paths.evidence, "excerpts": paths.excerpts}
    states = ResumePoints(**{name: run.state_path(path) for name, path in points.items()})
    result = explain_cell(
        model=load_model(paths.policy, device, run.settings["dtype"]),
        tokenizer=load_tokenizer(paths.policy),
        autoencoders={layer: autoencoder.load(path, device) for layer, path in saes.items()},
        matches=artefacts.read_table(paths.matches),
        corpus=artefacts.read_table(paths.corpus),
        held_out=artefacts.read_table(paths.held_out),
        lexicon=artefacts.read_json(paths.lexicon),
        feedback=run.settings["feedback"],
        settings=Explanations.of(run.settings),
        seed=run.seed,
        states=states,
    )
    artefacts.write_table(paths.output, result.explanations, run.stamp)
    artefacts.write_table(paths.excerpts, result.excerpts, run.stamp)
    artefacts.write_table(paths.evidence, result.evidence, run.stamp)
    states.remove()
    run.finish(classification.headline(result.explanations))


if __name__ == "__main__":
    main()
