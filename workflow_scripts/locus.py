"""Share a policy's effect among the parts of its weights."""

from lfp.files import artefacts
from lfp.running import job
from lfp.settings import Locus


def main() -> None:
    run = job.start(__doc__)
    device, orders = run.device, Locus.of(run.settings["locus"]).orders
    from lfp.locus import effects
    from lfp.models.loading import load_model, load_tokenizer

    base, policy = (load_model(path, device) for path in (run.input.base, run.input.policy))
    measure = effects.effect_measure(
        base,
        policy,
        load_tokenizer(run.input.base),
        artefacts.read_table(run.input.test),
        artefacts.read_json(run.input.lexicon),
        run.input.classifier,
        run.settings,
    )
    values = effects.shapley_values(base, policy, measure, orders, run.seed)
    values = values.assign(effect=run.settings["effect"])
    artefacts.write_table(run.output.locus, values, run.stamp)
    run.finish(effects.headline(values))


if __name__ == "__main__":
    main()
