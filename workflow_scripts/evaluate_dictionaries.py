"""Judge dictionaries beside controls: fidelity, geometry, and sparse probes of the feedback."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Activations, Probes


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, run.settings
    from lfp.evaluation.controls import codes, with_controls
    from lfp.evaluation.fidelity import fidelity, held_out
    from lfp.evaluation.sparse_probes import sparse_probes
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.sae import store

    reading = Activations.of(settings["activations"])
    tokenizer = load_tokenizer(run.input.model)
    model = load_model(run.input.model, device, settings["dtype"])
    sequences, fronts = held_out(tokenizer, artefacts.read_table(run.input.corpus), reading)
    folders = store.by_layer(run.input.autoencoders)
    dictionaries = {
        layer: with_controls(saes, store.load_other_seed(folders[layer], device), run.seed + layer)
        for layer, saes in store.load_sizes(run.input.autoencoders, device).items()
    }
    pad, batch_size = tokenizer.pad_token_id, reading.batch_size
    rows = fidelity(model, dictionaries, sequences, pad, batch_size, fronts)
    triples = artefacts.read_table(run.input.contrasts)
    kinds = codes(model, tokenizer, dictionaries, triples, **settings["features"])
    words, sizes = artefacts.read_json(run.input.lexicon)["words"], settings["sizes"]
    folds, feedback = Probes.of(settings["probes"]), settings["feedback"]
    probes = sparse_probes(kinds, triples, words, feedback, sizes, folds, run.seed)
    result = {"kind": settings["kind"], "dictionaries": rows}
    artefacts.write_json(run.output.evaluation, result, run.stamp)
    artefacts.write_table(run.output.probes, probes, run.stamp)
    run.finish(f"{len(rows)} dictionaries, {len(probes)} parts of probes")


if __name__ == "__main__":
    main()
