"""Explain latents of the smallest autoencoders offline, and cut held-out excerpts for scores."""

from lfp.explaining import classification
from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Explanations


def main() -> None:
    run = job.start(__doc__)
    device, outputs = run.device, run.output
    from lfp.explaining.heuristic import ResumePoints, explain_cell
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.sae import store

    states = ResumePoints(
        words=run.state_path(outputs.explanations),
        answers=run.state_path(outputs.evidence),
        excerpts=run.state_path(outputs.excerpts),
    )
    result = explain_cell(
        model=load_model(run.input.policy, device, run.settings["dtype"]),
        tokenizer=load_tokenizer(run.input.policy),
        autoencoders=store.load_layers(run.input.autoencoders, device),
        matches=artefacts.read_table(run.input.matches),
        corpus=artefacts.read_table(run.input.corpus),
        held_out=artefacts.read_table(run.input.held_out),
        lexicon=artefacts.read_json(run.input.lexicon),
        feedback=run.settings["feedback"],
        settings=Explanations.of(run.settings),
        seed=run.seed,
        states=states,
        shifts=next(map(artefacts.read_table, run.input.shifts), None),
    )
    artefacts.write_table(outputs.explanations, result.explanations, run.stamp)
    artefacts.write_table(outputs.excerpts, result.excerpts, run.stamp)
    artefacts.write_table(outputs.evidence, result.evidence, run.stamp)
    artefacts.write_table(outputs.histograms, result.histograms, run.stamp)
    run.finish(classification.headline(result.explanations))


if __name__ == "__main__":
    main()
