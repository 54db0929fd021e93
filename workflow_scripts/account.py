"""Ask what a change of weights is: the effect of its doses, and of one vector in its place."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Account, Change
from lfp.texts.corpora import documents


def main() -> None:
    run = job.start(__doc__)
    device, settings = run.device, Account.of(run.settings["account"])
    from lfp.change.account.doses import dose_effects, valued_words
    from lfp.change.account.vectors import vector_effects
    from lfp.change.choice import Pair
    from lfp.locus.effects import effect_measure
    from lfp.models.loading import load_model, load_tokenizer
    from lfp.models.tokens import encode

    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    pair = Pair(base, policy, load_tokenizer(run.input.base))
    held_out = artefacts.read_table(run.input.test)
    feedback = artefacts.read_json(run.input.lexicon)
    measure = effect_measure(
        base, policy, pair.tokenizer, held_out, feedback, run.input.classifier, run.settings
    )
    texts, n, tokens = documents(held_out), settings.instances, run.settings["max_tokens"]
    sequences = encode(pair.tokenizer, texts[: 2 * n], tokens)
    half = len(sequences) // 2  # vectors are means over other texts than those they are tested on
    lexicon = feedback["words"] if run.settings["feedback"] == "reward" else {}
    change = Change.of(run.settings["change"])
    words = valued_words(pair, texts, lexicon, n, change, run.seed)
    doses = dose_effects(pair, settings.doses, measure, sequences[:half], words)
    vectors = vector_effects(pair, measure, sequences[:half], sequences[half:], settings, run.seed)
    for path, frame in ((run.output.doses, doses), (run.output.vectors, vectors)):
        artefacts.write_table(path, frame.assign(effect=run.settings["effect"]), run.stamp)
    run.finish(f"{doses['dose'].nunique()} doses, {len(vectors)} values of moves")


if __name__ == "__main__":
    main()
