"""Train a tokenizer and a small language model on generated corpora, and evaluate it."""

from functools import partial

import pandas as pd

from lfp.files import artefacts, checkpoints, writing
from lfp.running import job
from lfp.settings import Organism
from lfp.texts.corpora import documents, has_pairs, verbatim


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Organism.of(run.settings)
    from lfp.models.loading import load_tokenizer, save_model
    from lfp.organisms import pretraining
    from lfp.organisms.tokenizers import train_tokenizer

    train = [text for path in run.input.train for text in documents(artefacts.read_table(path))]
    if settings.tokenizer_path:
        tokenizer = load_tokenizer(settings.tokenizer_path)
        run.sources += checkpoints.tokenizer_files(settings.tokenizer_path)
    else:
        tokenizer = train_tokenizer(train, settings.vocab_size, settings.tokenizer)
    state, stream = run.state_path(run.output.model), pretraining.packed_tokens(tokenizer, train)
    model, curve = pretraining.pretrain(tokenizer, stream, settings, device, state)
    held_out = dict(zip(settings.corpora, map(artefacts.read_table, run.input.test), strict=True))
    losses = partial(pretraining.held_out_losses, model, tokenizer, stream, settings.context)
    parts = [losses(documents(f)[:500]).assign(corpus=name) for name, f in held_out.items()]
    evaluation = pd.concat(parts, ignore_index=True)
    pieces = pretraining.pieces_of_scored_words(tokenizer, train)
    summary = {"pieces": pieces, "parameters": model.num_parameters()}
    summary["verbatim"] = {n: verbatim(f, train) for n, f in held_out.items() if has_pairs(f)}
    with writing.directory_aside(run.output.model, run.stamp) as folder:
        save_model(model, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(folder / "evaluation.parquet", evaluation, run.stamp)
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    nats, tokens = evaluation["nats"].sum(), evaluation["tokens"].sum()
    run.finish(f"held-out loss {nats / tokens:.3f} nats per token")


if __name__ == "__main__":
    main()
