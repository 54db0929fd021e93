"""The table of planted truth: the answers of every planted cell to the questions of its reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json
from lfp.statistics.multiple import holm
from lfp.tables.ablation import Arm, ArmKey, ablation_arms
from lfp.tables.planted import QUESTIONS
from lfp.tables.planted.questions import Answer, Case
from lfp.tables.planted.readouts import CellArtefacts
from lfp.tables.rows import TableSettings, Tally

#: Model, task and seed.
Address = tuple[str, str, int]


def cell_artefacts(inputs: Sequence[str]) -> dict[Address, CellArtefacts]:
    """The artefacts of every cell among `inputs` but for its ablations."""
    files: dict[Address, dict[str, str]] = {}
    for path in inputs:
        if path.endswith(".truth.json") or "/ablation/" in path:
            continue
        label = labels(path)
        stage = path.split(f"/seed{label['seed']}/")[1].split("/")[0]
        kind = Path(path).stem if stage == "probes" else stage
        name = f"{kind}.{label['subject']}" if "subject" in label else kind
        files.setdefault((label["model"], label["task"], label["seed"]), {})[name] = path
    return {address: CellArtefacts(paths) for address, paths in files.items()}


def planted_recovery(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The planted truth, its recovery, and the same question where nothing was planted.

    Every planted cell is held against the cell of the same model, corpus and seed whose reward is
    the clean lexicon, and the nulls beside it are the clean cells of other seeds and the cell whose
    reward is noise. Its task's truth file names the questions that are asked of it. ``p_adjusted``
    is Holm's over the numbers of one planted policy that must be there, and apart over those that
    must not.
    """
    tally = Tally()
    arms = {
        address[:3]: by_arm
        for address, by_arm in ablation_arms([p for p in inputs if "/ablation/" in p]).items()
    }
    for (model, task, seed), case in cases(inputs, arms, settings).items():
        label = {"model": model, "task": task, "seed": seed, "reward": case.truth["kind"]}
        answers = [a for name in case.truth["questions"] for a in QUESTIONS[name](case)]
        for answer in judged(answers):
            asked = {"question": answer.question, "readout": answer.readout, "of": answer.of}
            tally.add(
                answer.record,
                label | asked,
                answer.values,
                **answer.expected.columns(),
                answer=answer.expected.verdict(answer.record, answer.narrow),
            )
    return tally


def cases(
    inputs: Sequence[str], arms: Mapping[Address, Mapping[ArmKey, Arm]], settings: TableSettings
) -> dict[Address, Case]:
    """Every planted cell among the `inputs` with the cells that it is held against.

    They are of its own method and share of benign data, for methods drift in their own ways. A
    planted cell without a clean one is left out. `arms` are the cells' ablations.
    """

    def trained(model: str, task: str, seed: int) -> tuple[str, float] | None:
        return settings.trained.get(f"{model}/{task}/seed{seed}")

    artefacts = cell_artefacts(inputs)
    truths = {
        Path(path).name.removesuffix(".truth.json"): read_json(path)
        for path in of(inputs, ".truth.json")
    }
    result = {}
    for (model, task, seed), planted in artefacts.items():
        alike: dict[str, dict[int, CellArtefacts]] = {"vader": {}, "noise": {}}
        for (m, t, s), cell in artefacts.items():
            same = m == model and truths[t]["corpus"] == truths[task]["corpus"]
            same = same and trained(m, t, s) == trained(model, task, seed)
            if same and truths[t]["kind"] in alike:
                alike[truths[t]["kind"]].setdefault(s, cell)
        if not truths[task]["questions"] or seed not in alike["vader"]:
            continue
        others = {
            f"clean policy of seed {s}": cell for s, cell in alike["vader"].items() if s != seed
        }
        result[model, task, seed] = Case(
            planted=planted,
            clean=alike["vader"][seed],
            others=others,
            noise=alike["noise"].get(seed),
            truth=truths[task],
            arms=arms.get((model, task, seed), {}),
            settings=settings,
        )
    return result


def judged(answers: Sequence[Answer]) -> list[Answer]:
    """The answers of one planted policy with Holm's p, apart for the two things that they test.

    They test that something is there, and that nothing is.
    """
    result = []
    for silent in (False, True):
        family = [answer for answer in answers if (answer.expected.side == "at") is silent]
        p = [np.nan if a.record.p is None else a.record.p for a in family]
        result += [
            replace(answer, record=replace(answer.record, p_adjusted=float(q)))
            if answer.record.p is not None
            else answer
            for answer, q in zip(family, holm(np.array(p)), strict=True)
        ]
    return result
