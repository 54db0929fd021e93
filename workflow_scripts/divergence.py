"""Measure how far every layer of a policy moved from its base and choose the layers to look at."""

from lfp.files import artefacts
from lfp.running import job
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__, ["base", "policy", "corpus"], ["output"])
    device = run.device
    from lfp.finetune import divergence
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode

    settings = run.settings
    tokenizer = load_tokenizer(run.paths.base)
    base, policy = load_model(run.paths.base, device), load_model(run.paths.policy, device)
    texts = documents(artefacts.read_table(run.paths.corpus))[: settings["texts"]]
    sequences = encode(tokenizer, texts, settings["max_tokens"])
    rows = divergence.parameter_divergence(base, policy)
    changes = divergence.activation_divergence(
        base, policy, sequences, tokenizer.pad_token_id, settings["batch_size"]
    )
    for row, change in zip(rows, changes, strict=True):
        row["activation"] = change
    ranking = divergence.ranking(rows, settings["measure"])
    n = settings["n_layers"]
    result = {
        "layers": rows,
        "measure": settings["measure"],
        "ranking": ranking,
        "chosen": sorted(settings["layers"] or ranking[:n]),
        "lowest": sorted(settings["lowest"] or ranking[-n:]),
    }
    artefacts.write_json(run.paths.output, result, run.stamp)
    run.finish(f"layers {', '.join(map(str, result['chosen']))} by {settings['measure']}")


if __name__ == "__main__":
    main()
