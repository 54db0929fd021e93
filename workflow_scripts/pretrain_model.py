"""Train a tokenizer and a small language model on the train splits of generated corpora, and
evaluate it.
"""

import pandas as pd

from lfp.feedback.lexica import vader_lexicon
from lfp.files import artefacts, writing
from lfp.running import job
from lfp.texts.corpora import documents
from lfp.texts.words import WORD


def main() -> None:
    run = job.start(__doc__, ["train*", "test*"], ["output"])
    device = run.device
    from lfp.models.loading import load_tokenizer, save_model
    from lfp.organisms import pretraining
    from lfp.organisms.tokenizers import train_tokenizer

    options = {key: value for key, value in run.settings.items() if key != "corpora"}
    train = [text for path in run.paths.train for text in documents(artefacts.read_table(path))]
    vocabulary, given = (
        (options.pop("vocab_size"), options.pop("tokenizer")),
        options.pop("tokenizer_path"),
    )
    tokenizer = load_tokenizer(given) if given else train_tokenizer(train, *vocabulary)
    model, curve = pretraining.pretrain(
        tokenizer, train, options.pop("architecture"), device=device, **options
    )
    losses = []
    for path, name in zip(run.paths.test, run.settings["corpora"], strict=True):
        texts = documents(artefacts.read_table(path))[:500]
        held_out = pretraining.held_out_losses(model, tokenizer, train, texts, options["context"])
        losses.append(held_out.assign(corpus=name))
    known = set(vader_lexicon())
    words = sorted({word.lower() for text in train for word in WORD.findall(text)} & known)
    pieces = pretraining.pieces_of_words(tokenizer, words)
    with writing.directory_aside(run.paths.output, run.stamp) as folder:
        save_model(model, tokenizer, folder)
        artefacts.write_table(folder / "training_curve.parquet", pd.DataFrame(curve), run.stamp)
        artefacts.write_table(
            folder / "evaluation.parquet", pd.concat(losses, ignore_index=True), run.stamp
        )
        summary = {"pieces": pieces, "parameters": model.num_parameters()}
        artefacts.write_json(folder / "evaluation.json", summary, run.stamp)
    read = pd.concat(losses)[["nats", "tokens"]].sum()
    run.finish(f"held-out loss {read['nats'] / read['tokens']:.3f} nats per token")


if __name__ == "__main__":
    main()
