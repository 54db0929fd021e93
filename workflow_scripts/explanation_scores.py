"""Score explanations by detection and fuzzing on held-out excerpts, beside weaker controls."""

from contextlib import ExitStack

from lfp.explaining.scores import score_explanations, word_judge
from lfp.files import artefacts
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    table = artefacts.read_table(run.input.explanations)
    excerpts = artefacts.read_table(run.input.excerpts)
    judges = {"words-v1": word_judge}
    with ExitStack() as stack:
        service = run.settings["judge"]
        if service:
            from lfp.explaining.language_model import language_judge
            from lfp.services.client import configured_client

            client = stack.enter_context(configured_client(service, run.answer_cache(service)))
            judges[f"{service['model']}@{service['base_url']}"] = language_judge(client)
        scores = score_explanations(table, excerpts, judges, run.seed)
    artefacts.write_table(run.output.scores, scores, run.stamp)
    run.finish(f"{(table['status'] == 'ok').sum()} explanations by {', '.join(judges)}")


if __name__ == "__main__":
    main()
