"""Of how many attention heads the directions of a dictionary are made."""

from __future__ import annotations

from collections.abc import Sequence

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record
from lfp.statistics.records.means import mean_record
from lfp.tables.rows import TableSettings, Tally


def head_shares(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Largest shares and effective heads of latents, and how many latents each head leads."""
    tally = Tally()
    for path in inputs:
        for keys, group in read_table(path).groupby(["layer", "size"], sort=False):
            label = {**labels(path), **dict(zip(("layer", "size"), keys, strict=True))}
            heads = [name for name in group if name.startswith("share_")]
            shares = group[heads].dropna(axis=1)
            for quantity, column, random in (
                ("largest_share", "largest", "random_largest"),
                ("effective_heads", "effective_heads", "random_effective_heads"),
            ):
                record = mean_record(group[column].to_numpy(), "latent", settings.confidence)
                values = group[["latent", "head", column]]
                values = values.rename(columns={"head": "largest_at", column: "value"})
                where = {**label, "quantity": quantity, "head": "all"}
                tally.add(record, where, values, random=float(group[random].mean()))
            for i in range(shares.shape[1]):
                led = int((group["head"] == i).sum())
                record = Record(
                    float(shares.iloc[:, i].mean()), None, None, len(group), "latent",
                    "mean over latents, no interval",
                )  # fmt: skip
                where = {**label, "quantity": "share", "head": str(i)}
                tally.add(record, where, random=1 / shares.shape[1], leads=led)
    return tally
