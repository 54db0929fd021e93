"""The table of planted truth: the answers of every planted cell to the questions of its reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json
from lfp.tables.ablation import ablation_arms
from lfp.tables.planted import QUESTIONS
from lfp.tables.planted.questions import Case
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
        kind = "predictions" if stage == "probes" else stage
        name = f"{kind}.{label['subject']}" if "subject" in label else kind
        files.setdefault((label["model"], label["task"], label["seed"]), {})[name] = path
    return {address: CellArtefacts(paths) for address, paths in files.items()}


def planted_recovery(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The planted truth, its recovery, and the same question where nothing was planted.

    Every planted cell is held against the cell of the same model, corpus and seed whose reward is
    the clean lexicon. Its task's truth file names the questions that are asked of it.
    """
    tally = Tally()
    cells = cell_artefacts(inputs)
    truths = {
        Path(path).name.removesuffix(".truth.json"): read_json(path)
        for path in of(inputs, ".truth.json")
    }
    arms = {
        address[:3]: by_arm
        for address, by_arm in ablation_arms([p for p in inputs if "/ablation/" in p]).items()
    }
    for (model, task, seed), planted in cells.items():
        truth = truths[task]
        alike = {"kind": "vader", "corpus": truth["corpus"]}
        clean = next(
            (
                cell
                for (m, t, s), cell in cells.items()
                if (m, s) == (model, seed) and alike.items() <= truths[t].items()
            ),
            None,
        )
        if clean is None:
            continue
        case = Case(planted, clean, truth, arms.get((model, task, seed), {}), settings)
        label = {"model": model, "task": task, "seed": seed, "reward": truth["kind"]}
        for name in truth["questions"]:
            for answer in QUESTIONS[name](case):
                asked = {"question": answer.question, "readout": answer.readout, "of": answer.of}
                judged = {
                    "expected": f"{answer.expected} {answer.value:g}",
                    "answer": answer.verdict,
                }
                tally.add(answer.record, label | asked, answer.values, **judged)
    return tally
