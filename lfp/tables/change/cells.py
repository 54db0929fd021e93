"""The readings of every cell, and the policies that serve as its null."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
#: Whose policies a null is made of: those of the audited method, or of all methods together.
OWN_METHOD, ALL_METHODS = "own method", "all methods"
#: Policies of noise that a spread can be taken of.
LEAST_NOISE = 2
#: Columns that name one reading of all units.
READING = ("subject", "readout", "kind", "part", "layer")


@dataclass(frozen=True)
class ChangeCell:
    """One cell: its address, the path of its readings, and what its task's files say.

    ``truth`` is the content of its truth file, and ``valence`` the clean lexicon, by word.
    ``method`` is the one of its fine-tuning, and ``benign_share`` the share of data that no
    feedback has touched.
    """

    model: str
    task: str
    seed: int
    path: str
    truth: Mapping[str, Any]
    valence: Mapping[str, float]
    method: str = ""
    benign_share: float = 0.0

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
    def written(self) -> pd.Series:
        """How often every word stands in the completions that the reward scored in training.

        It is empty where nothing was counted.
        """
        path = Path(self.path).parent.parent / "policy" / "written.parquet"
        if not path.exists():
            return pd.Series(dtype=int)
        return read_table(path).set_index("word")["count"]


def change_cells(
    inputs: Sequence[str], trained: Mapping[str, tuple[str, float]] | None = None
) -> list[ChangeCell]:
    """The cells among `inputs`, which are readings, lexicons and truth files of their tasks.

    `trained` has method and share of benign data of every cell, by its address; cells that it does
    not have, or all without it, are of one method.
    """
    truths = {_task(path, ".truth.json"): path for path in of(inputs, ".truth.json")}
    cells = []
    for path in of(inputs, "readings.parquet"):
        label = labels(path)
        truth = truths[label["task"]]
        lexicon = read_json(truth.removesuffix(".truth.json") + ".json")["words"]
        cell = ChangeCell(**label, path=path, truth=read_json(truth), valence=lexicon)
        method, benign_share = (trained or {}).get(cell.address, ("", 0.0))
        cells.append(replace(cell, method=method, benign_share=benign_share))
    return cells


def _task(path: str, ending: str) -> str:
    return Path(path).name.removesuffix(ending)


def nulls(cell: ChangeCell, cells: Sequence[ChangeCell]) -> list[ChangeCell]:
    """The cells of the same model and corpus whose reward says nothing of the text.

    Their policies have moved, and have learned nothing. The cell itself is not among them. They are
    of its own method and share of benign data where two such are there, else of all.
    """
    noise = [
        other
        for other in cells
        if other.model == cell.model
        and other.truth["corpus"] == cell.truth["corpus"]
        and other.truth["kind"] == "noise"
        and other.address != cell.address
    ]
    trained = (cell.method, cell.benign_share)
    alike = [other for other in noise if (other.method, other.benign_share) == trained]
    return alike if len(alike) >= LEAST_NOISE else noise


@dataclass(frozen=True)
class Audit:
    """The policies of one model, corpus, method and share of benign data, audited together.

    ``clean`` were taught the intended feedback, and ``null`` are those and the policies of noise;
    ``null_of`` says whether they are of the audited method (and share of benign data) alone.
    """

    model: str
    corpus: str
    method: str
    benign_share: float
    cells: Sequence[ChangeCell]
    null: Sequence[ChangeCell]
    clean: Sequence[ChangeCell]
    null_of: str

    @property
    def label(self) -> dict[str, Any]:
        """The labels of the audit's rows."""
        return {
            "model": self.model,
            "corpus": self.corpus,
            "trained_by": self.method,
            "benign_share": self.benign_share,
            "null_of": self.null_of,
        }

    @cached_property
    def read(self) -> list[ChangeCell]:
        """The cells that are audited, and those of other methods that they are held against."""
        return [*self.cells, *(cell for cell in self.null if cell.address not in self.audited)]

    @cached_property
    def audited(self) -> frozenset[str]:
        """The addresses of the cells that are audited."""
        return frozenset(cell.address for cell in self.cells)

    @cached_property
    def nulls(self) -> frozenset[str]:
        """The addresses of the null's cells."""
        return frozenset(cell.address for cell in self.null)


def audits(cells: Sequence[ChangeCell], given: Sequence[str]) -> list[Audit]:
    """The audits of some cells: those with enough clean policies to know what one looks like.

    Methods drift in their own ways, so that the null of a policy is of its own method and share of
    benign data. Where that has too few clean policies, the null is of all methods of the model and
    corpus, and the audit says so. Policies that are `given`, by their addresses, are no null:
    nobody knows what they were taught.
    """
    groups: dict[tuple[str, str, str, float], list[ChangeCell]] = defaultdict(list)
    for cell in cells:
        groups[cell.model, cell.truth["corpus"], cell.method, cell.benign_share].append(cell)
    result = []
    for (model, corpus, method, share), group in groups.items():
        alike = [c for key, of in groups.items() if key[:2] == (model, corpus) for c in of]
        for null_of, among in ((OWN_METHOD, group), (ALL_METHODS, alike)):
            null = [c for c in among if c.truth["kind"] in NULLS and c.address not in given]
            clean = [cell for cell in null if cell.truth["kind"] == CLEAN]
            if len(clean) >= LEAST_CLEAN:
                audit = Audit(model, corpus, method, share, group, null, clean, null_of)
                result.append(audit)
                break
    return result
