"""The readings of every cell, and the policies that serve as its null."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.tables.change import LEAST_CLEAN

#: The kind of reward of a clean policy, and the kinds that make one a null: it was taught the
#: intended feedback, or nothing.
CLEAN, NULLS = "vader", ("vader", "noise")
#: Columns that name one reading of all units.
READING = ("subject", "readout", "kind", "part", "layer")


@dataclass(frozen=True)
class ChangeCell:
    """One cell: its address, the path of its readings, and what its task's files say.

    ``truth`` is the content of its truth file, and ``valence`` the clean lexicon, by word.
    """

    model: str
    task: str
    seed: int
    path: str
    truth: Mapping[str, Any]
    valence: Mapping[str, float]

    @property
    def address(self) -> str:
        """Path of the cell's results below the results folder."""
        return f"{self.model}/{self.task}/seed{self.seed}"

    @property
    def label(self) -> dict[str, Any]:
        """The labels of the cell's rows."""
        return {"model": self.model, "task": self.task, "seed": self.seed}

    @cached_property
    def readings(self) -> pd.DataFrame:
        """All readings, with the ``valence`` of words that the lexicon has."""
        frame = read_table(self.path)
        words = frame["unit"].where(frame["kind"] == "word")
        return frame.assign(valence=words.map(self.valence))

    @cached_property
    def written(self) -> frozenset[str]:
        """Words that the policy wrote while it was trained; none where nothing was counted."""
        path = Path(self.path).parent.parent / "policy" / "written.parquet"
        return frozenset(read_table(path)["word"]) if path.exists() else frozenset()


def change_cells(inputs: Sequence[str]) -> list[ChangeCell]:
    """The cells among `inputs`, which are readings, lexicons and truth files of their tasks."""
    truths = {_task(path, ".truth.json"): path for path in of(inputs, ".truth.json")}
    cells = []
    for path in of(inputs, "readings.parquet"):
        label = labels(path)
        truth = truths[label["task"]]
        lexicon = read_json(truth.removesuffix(".truth.json") + ".json")["words"]
        cells.append(ChangeCell(**label, path=path, truth=read_json(truth), valence=lexicon))
    return cells


def _task(path: str, ending: str) -> str:
    return Path(path).name.removesuffix(ending)


def nulls(cell: ChangeCell, cells: Sequence[ChangeCell]) -> list[ChangeCell]:
    """The cells of the same model and corpus whose reward says nothing of the text.

    Their policies have moved, and have learned nothing. The cell itself is not among them.
    """
    return [
        other
        for other in cells
        if other.model == cell.model
        and other.truth["corpus"] == cell.truth["corpus"]
        and other.truth["kind"] == "noise"
        and other.address != cell.address
    ]


@dataclass(frozen=True)
class Audit:
    """The policies of one model and corpus that are audited together.

    ``clean`` were taught the intended feedback, and ``null`` are those and the policies of noise.
    """

    model: str
    corpus: str
    cells: Sequence[ChangeCell]
    null: Sequence[ChangeCell]
    clean: Sequence[ChangeCell]


def audits(cells: Sequence[ChangeCell], given: Sequence[str]) -> list[Audit]:
    """The audits of some cells: those with enough clean policies to know what one looks like.

    Policies that are `given`, by their addresses, are no null: nobody knows what they were taught.
    """
    groups: dict[tuple[str, str], list[ChangeCell]] = defaultdict(list)
    for cell in cells:
        groups[cell.model, cell.truth["corpus"]].append(cell)
    result = []
    for (model, corpus), group in groups.items():
        null = [c for c in group if c.truth["kind"] in NULLS and c.address not in given]
        clean = [cell for cell in null if cell.truth["kind"] == CLEAN]
        if len(clean) >= LEAST_CLEAN:
            result.append(Audit(model, corpus, group, null, clean))
    return result
