"""A readout of one's own, as a user writes it."""

import pandas as pd

from lfp.tables.planted.readouts import CellArtefacts, by_word


def spelling(cell: CellArtefacts, subject: str) -> pd.DataFrame:
    """The number in a word's spelling, which no reward can change."""
    frame = cell.predictions(subject)
    return by_word(frame.assign(number=frame["unit"].str[1:].astype(float)), "number")
