"""Measure the change of every layer of a policy from its base, and choose layers."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Divergence
from lfp.texts.corpora import documents, taken


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Divergence.of(run.settings)
    from lfp.finetune import divergence
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode

    tokenizer = load_tokenizer(run.input.base)
    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    texts = documents(artefacts.read_table(run.input.corpus))
    texts = taken(texts, settings.texts, "divergence.texts")
    sequences = encode(tokenizer, texts, settings.max_tokens)
    rows = divergence.layer_divergence(
        base, policy, sequences, tokenizer.pad_token_id, settings.batch_size
    )
    for path in run.input.locus:
        values = divergence.mlp_values(artefacts.read_table(path), len(rows))
        rows = [row | {"locus": value} for row, value in zip(rows, values, strict=True)]
    choice = divergence.choose_layers(
        rows,
        settings,
        pinned=run.settings["layers"],
        lowest=run.settings["lowest"],
    )
    artefacts.write_json(run.output.divergence, choice, run.stamp)
    run.finish(f"layers {', '.join(map(str, choice['chosen']))} by {settings.measure}")


if __name__ == "__main__":
    main()
