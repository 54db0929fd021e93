"""What steering does to latents: read in what a model writes under it (SAE-TS).

The untouched model reads what was written, so that a latent counts where the text has it, and not
where the vector itself lies along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.interventions.completions import Written, write
from lfp.models.hooks import captured
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.steering.changes import Changes, applied, constant
from lfp.steering.targeted import EffectMap, fitted_map


@dataclass(frozen=True)
class LatentReading:
    """Reads the latents of what a model writes to prompts under changes.

    Parameters
    ----------
    model, tokenizer
        The model that is steered and its tokenizer.
    sae
        The dictionary, of the layer that is steered.
    prompts
        Token ids of held-out prompts.
    new_tokens, batch_size
        Tokens to sample, at most, and completions in a batch.
    seed
        Seed of sampling; all changes draw the same uniforms.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sae: SparseAutoencoder
    prompts: Sequence[Sequence[int]]
    new_tokens: int
    batch_size: int
    seed: int

    @torch.no_grad()
    def effects(self, changes: Sequence[Changes], strengths: Sequence[float]) -> np.ndarray:
        """What each change at its strength does to the mean of every latent [change, latent]."""
        edits = [applied(of, at) for of, at in zip(changes, strengths, strict=True)]
        together, means = max(1, self.batch_size // len(self.prompts)), []
        for start in Progress(range(0, len(edits) + 1, together), desc="effects on latents"):
            part = [{}, *edits][start : start + together]
            written = write(
                self.model, self.tokenizer, part, self.prompts, self.new_tokens, self.seed,
                self.sae.site,
            )  # fmt: skip
            means.append(self._latents(written).reshape(len(part), len(self.prompts), -1).mean(1))
        values = torch.cat(means).double().cpu().numpy()
        return values[1:] - values[0]

    def _latents(self, written: Written) -> torch.Tensor:
        """Mean latents [row, latent] over the tokens of each response."""
        with captured(self.model, [self.sae.layer], site=self.sae.site) as outputs:
            written.read_again(self.model, {}, self.sae.site)
        length = written.response.shape[1]
        mask = written.mask[..., None]
        shape = (*written.mask.shape[:1], -1, self.sae.d_in)
        latents = self.sae.latents(outputs[self.sae.layer].reshape(shape)[:, -length:].float())
        return (latents * mask).sum(1) / mask.sum(1).clamp(min=1)


def measured_map(reading: LatentReading, directions: int, length: float, seed: int) -> EffectMap:
    """The map of effects, fitted to directions of the decoder and to random ones.

    Half of the directions are the decoder's, for they are what the map is asked about, and half are
    drawn at random, so that all of the space is seen.

    Parameters
    ----------
    reading
        Measures effects.
    directions
        Number of directions, at least 10.
    length
        The strength at which a unit vector is added.
    seed
        Seed of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    sae = reading.sae
    rows = torch.randperm(sae.d_sae, generator=generator)[: directions // 2]
    chosen = sae.W_dec.detach().cpu()[rows]
    drawn = torch.randn(directions - len(rows), sae.d_in, generator=generator)
    units = torch.cat([chosen, F.normalize(drawn, dim=1)])
    changes = [constant({sae.layer: unit}) for unit in units]
    effects = reading.effects(changes, [length] * len(changes))
    return fitted_map(units, torch.from_numpy(effects), seed)
