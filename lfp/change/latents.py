"""Which latents of a dictionary carry what a component of the model changed at the choice.

An autoencoder writes what a site gives as x = Σ_i f_i d_i + r, with d_i its directions and r what
it does not reconstruct. The change of x then is Σ_i Δf_i d_i + Δr, and each term has its share in
the log-ratio of policy and base at a word (:mod:`lfp.change.decomposition`), exactly: latents and
``error`` add up to the share of the component. The same dictionary reads both models. Beside it
stands the shift of the latents' means, which is of no word: over held-out text that both models
read, and over what each of them writes, read by the base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.change import COMPLETIONS, HELD_OUT, WRITING
from lfp.change.choice import POSITIONS, Pair, Reader, RunningMean
from lfp.change.material import NOISE, Material
from lfp.change.weights import with_noise
from lfp.models.architectures import architecture, blocks
from lfp.models.generation import masked_rows, sampled
from lfp.models.hooks import captured, site_activations
from lfp.models.residual import Norm, Residual
from lfp.models.tokens import added_tokens
from lfp.probing.data import SIGNS
from lfp.probing.features import Elements
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Change

#: Latents of a layer whose shares are kept unit by unit: those of the largest mean size.
KEPT = 5
#: The number of the column of what a dictionary does not reconstruct.
ERROR = -1
#: Columns of the two results.
CHOICE = ("subject", "layer", "part", "latent", "kind", "unit", "element", "value")
SHIFTS = ("subject", "text", "layer", "latent", "before", "value", "error", "texts")

#: Activations of a site by layer, of base and policy.
Read = tuple[Mapping[int, torch.Tensor], Mapping[int, torch.Tensor]]


class LatentReader:
    """The shares of the latents of dictionaries by layer, for a pair of models.

    ``columns`` names them by layer and latent, the error behind the latents of each layer.

    Raises ValueError for dictionaries of a site that does not write to the residual stream.
    """

    def __init__(self, pair: Pair, autoencoders: Mapping[int, SparseAutoencoder]) -> None:
        self.site = site_of(autoencoders)
        if self.site not in WRITING:
            raise ValueError(
                f"the autoencoders read the site {self.site!r}, whose change has no share of its"
                f" own at the choice: expected one of {', '.join(WRITING)}"
            )
        self.reader, self.autoencoders = Reader(pair), autoencoders
        path = getattr(architecture(pair.base), WRITING[self.site][1])
        models = (pair.base, pair.policy)
        self._norms = {
            layer: [Norm.of(blocks(m)[layer].get_submodule(path), m) for m in models]
            for layer in (autoencoders if path else ())
        }
        self.columns = [
            (layer, latent)
            for layer, sae in autoencoders.items()
            for latent in (*range(sae.d_sae), ERROR)
        ]

    def states(
        self, sequences: Sequence[Sequence[Sequence[int]]], shared: Sequence[int], rows: int
    ) -> Iterator[tuple[np.ndarray, tuple[Residual, Residual], Read]]:
        """Those of :meth:`lfp.change.choice.Reader.states`, with the site's activations."""
        pair, layers = self.reader.pair, list(self.autoencoders)
        with (
            captured(pair.base, layers, site=self.site) as one,
            captured(pair.policy, layers, site=self.site) as two,
        ):
            for index, *written in self.reader.states(sequences, shared, rows):
                yield index, tuple(written), (one, two)

    def values(
        self,
        written: tuple[Residual, Residual],
        read: Read,
        places: tuple[torch.Tensor, torch.Tensor],
        tokens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of the columns in the log-ratios of `tokens`, and the tokens' likelihood.

        Shares are [position, token, column] in nats; the likelihood is the base's log-probability
        [position, token].

        Parameters
        ----------
        written, read
            What base and policy have written, and the site's activations.
        places
            Rows and tokens of the positions in them.
        tokens
            Ids of tokens [position, token].
        """
        values, likely, decomposition = [], [], self.reader.decomposition
        for start in range(0, len(tokens), POSITIONS):
            here = slice(start, start + POSITIONS)
            at, ids = (places[0][here], places[1][here]), tokens[here]
            shifts = decomposition.shifts(
                written[0].parts(at[0], at[1]), written[1].parts(at[0], at[1])
            )
            gradients, batch = decomposition.gradients(shifts, ids), written[0].state.shape[:2]
            of_layers = []
            for layer in self.autoencoders:
                x = [of[layer].reshape(*batch, -1)[at].float() for of in read]
                of_layers.append(self._of_layer(layer, gradients, x[0], x[1]))
            values.append(torch.cat(of_layers, -1))
            likely.append(shifts.likely.gather(1, ids))
        return torch.cat(values), torch.cat(likely)

    def _of_layer(
        self, layer: int, gradients: torch.Tensor, before: torch.Tensor, after: torch.Tensor
    ) -> torch.Tensor:
        """Shares [position, token, latent and error] of a layer.

        A norm behind the component divides both models' activations by a scale of their own.
        """
        sae = self.autoencoders[layer]
        codes = sae.latents(before), sae.latents(after)
        if layer not in self._norms:
            return _products(sae, gradients, codes[1] - codes[0], after - before)
        one, two = (
            _products(sae, norm.centre(gradients * norm.gain / norm.scale(x)[:, None]), code, x)
            for norm, code, x in zip(self._norms[layer], codes, (before, after), strict=True)
        )
        return two - one


def _products(
    sae: SparseAutoencoder, gradients: torch.Tensor, latents: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """Products of `gradients` with what each latent writes, and with the rest.

    `gradients` are [position, token, d_model], `latents` [position, latent], and `x`, which is all
    that is written, [position, d_model].
    """
    directions = sae.W_dec
    rest = x - latents @ directions
    return torch.cat(
        [(gradients @ directions.T) * latents[:, None], gradients @ rest[..., None]], -1
    )


@dataclass(frozen=True)
class Shares:
    """Shares of latents in the log-ratios of units.

    Parameters
    ----------
    units
        A row per unit: ``kind``, ``unit`` and ``element``.
    columns
        Layer and latent of every column, :data:`ERROR` for what is not reconstructed.
    values
        Shares [unit, column] in nats.
    component
        The component of the model that they add up to in each layer.
    """

    units: pd.DataFrame
    columns: list[tuple[int, int]]
    values: np.ndarray
    component: str

    def largest(self) -> dict[int, list[int]]:
        """The :data:`KEPT` latents of every layer of the largest mean absolute share, in order."""
        size = np.abs(self.values).mean(0) if len(self.values) else np.zeros(len(self.columns))
        chosen: dict[int, list[int]] = {}
        for i in np.argsort(-size, kind="stable"):
            layer, latent = self.columns[i]
            of_layer = chosen.setdefault(layer, [])
            if latent != ERROR and len(of_layer) < KEPT:
                of_layer.append(latent)
        return dict(sorted(chosen.items()))

    def frame(self, kept: Mapping[int, Sequence[int]]) -> pd.DataFrame:
        """A row per unit and part: the latents `kept` by layer, ``others``, ``error``, and all.

        The last part has the name of the component, and the others add up to it.
        """
        layers = np.array([layer for layer, _ in self.columns], dtype=int)
        latents = np.array([latent for _, latent in self.columns], dtype=int)
        rows = []
        for layer, wanted in kept.items():
            here = layers == layer
            for latent in wanted:
                rows.append((layer, "latent", latent, here & (latents == latent)))
            left = here & (latents != ERROR) & ~np.isin(latents, list(wanted))
            rows += [
                (layer, "others", -1, left),
                (layer, "error", -1, here & (latents == ERROR)),
                (layer, self.component, -1, here),
            ]
        frames = [
            self.units.assign(
                layer=layer, part=part, latent=latent, value=self.values[:, chosen].sum(1)
            )
            for layer, part, latent, chosen in rows
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def choice_latents(
    pair: Pair,
    autoencoders: Mapping[int, SparseAutoencoder],
    read: Material,
    settings: Change,
    seed: int,
) -> pd.DataFrame:
    """Shares of the latents that carry most of each layer's change at the choice.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    autoencoders
        The dictionary of every layer that has one, all of one site.
    read
        Words, contexts and triples. Words of several tokens are left out, as each of them would
        have to be read by itself; where feedback is about answers, these are read.
    settings
        Weights of contexts, number of copies with noise, sizes.
    seed
        Seed of the noise.

    Returns
    -------
    pandas.DataFrame
        A row per ``subject`` (``policy``, or ``weight_noise`` and a number), ``layer``, ``part``,
        ``latent`` (-1 for none) and unit: ``kind``, ``unit``, ``element``, ``value`` (nats). Copies
        with noise have the latents of the policy.
    """
    shares = _shares(pair, autoencoders, read, settings)
    if not len(shares.units):
        return pd.DataFrame(columns=CHOICE)
    kept = shares.largest()
    frames = [shares.frame(kept).assign(subject="policy")]
    for draw in range(settings.noise_draws):
        noisy = dataclasses.replace(pair, policy=with_noise(pair.base, pair.policy, seed + draw))
        control = _shares(noisy, autoencoders, read, settings)
        frames.append(control.frame(kept).assign(subject=f"{NOISE} {draw}"))
    return pd.concat(frames, ignore_index=True)[list(CHOICE)]


@torch.inference_mode()
def _shares(
    pair: Pair,
    autoencoders: Mapping[int, SparseAutoencoder],
    read: Material,
    settings: Change,
) -> Shares:
    """Shares of all latents, of words behind their contexts or of answers."""
    reader = LatentReader(pair, autoencoders)
    if read.kind == "answer":
        units, values = _of_answers(reader, read, settings.batch_size)
    else:
        units, values = _of_words(reader, read, settings)
    component = WRITING[reader.site][0]
    return Shares(units.assign(kind=read.kind), reader.columns, values, component)


def _of_words(
    reader: LatentReader, read: Material, settings: Change
) -> tuple[pd.DataFrame, np.ndarray]:
    """The words of one token, and weighted means of their shares over contexts."""
    single = [(word, ids[0]) for word, ids in zip(read.words.words, read.words.pieces, strict=True)
              if len(ids) == 1]  # fmt: skip
    units = pd.DataFrame({"unit": [word for word, _ in single], "element": ""})
    if not single or not read.contexts:
        return units[:0], np.zeros((0, len(reader.columns)))
    tokens = torch.tensor([[token for _, token in single]], device=reader.reader.pair.base.device)
    shared, means = [len(context) - 1 for context in read.contexts], RunningMean()
    for rows, written, activations in reader.states([read.contexts], shared, settings.batch_size):
        for row in range(len(rows)):
            at = torch.tensor([row]), torch.tensor([0])
            values, likely = reader.values(written, activations, at, tokens)
            means.add(values[0].double(), settings.likelihood_exponent * likely[0].double())
    return units, means.mean.cpu().numpy()


def _of_answers(
    reader: LatentReader, read: Material, batch_size: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Both answers of all triples, and sums of their shares over tokens."""
    triples, device = read.triples, reader.reader.pair.base.device
    elements = Elements(reader.reader.pair.tokenizer, triples, list(SIGNS), read.max_tokens)
    kinds, names = len(SIGNS), triples["triple"].astype(str)
    sums = np.zeros((kinds, len(triples), len(reader.columns)))
    at_once = max(1, batch_size // kinds)
    for rows, written, activations in reader.states(elements.sequences, elements.shared, at_once):
        for e in range(kinds):
            place, token, ids = elements.targets_of(rows, e, device)
            known = token > 0  # a text's first token is no choice
            at = place[known] * kinds + e, token[known] - 1
            values, _ = reader.values(written, activations, at, ids[known.to(device), None])
            summed = values.new_zeros(len(rows), values.shape[-1])
            summed.index_add_(0, place[known].to(device), values[:, 0])
            sums[e][rows] = summed.cpu().numpy()
    units = [pd.DataFrame({"unit": names, "element": element}) for element in SIGNS]
    return pd.concat(units, ignore_index=True), sums.reshape(-1, sums.shape[-1])


def latent_shifts(
    pair: Pair,
    autoencoders: Mapping[int, SparseAutoencoder],
    sequences: Sequence[Sequence[int]],
    settings: Change,
    seed: int,
) -> pd.DataFrame:
    """The shift of every latent's mean activation from base to policy, over texts.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    autoencoders
        The dictionary of every layer that has one, which reads all models.
    sequences
        Token ids of held-out texts, the same ones for all models.
    settings
        Number of copies with noise, and size of a batch.
    seed
        Seed of the noise.

    Returns
    -------
    pandas.DataFrame
        A row per ``subject`` (as in :func:`choice_latents`), ``layer`` and ``latent``, with
        ``text``, the texts that were read (:data:`HELD_OUT`): ``before``,
        the mean over texts of the base's mean activation in a text, ``value``, the mean shift,
        ``error``, its standard error over texts, and ``texts``, their number. Without two texts
        there is no row.
    """
    if len(sequences) < 2:
        return pd.DataFrame(columns=SHIFTS)
    size, fronts = settings.batch_size, [len(added_tokens(pair.tokenizer)[0])] * len(sequences)

    def means(model: PreTrainedModel) -> dict[int, np.ndarray]:
        return _text_means(pair, model, autoencoders, sequences, size, fronts)

    return _shifts(pair, means, settings, seed, HELD_OUT)


@torch.inference_mode()
def written_shifts(
    pair: Pair,
    autoencoders: Mapping[int, SparseAutoencoder],
    prompts: Sequence[list[int]],
    settings: Change,
    seed: int,
) -> pd.DataFrame:
    """The shift of every latent's mean activation from the base's completions to the policy's.

    Both are completions of the same prompts with common random numbers, and the base reads both:
    what differs is what was written, and not who reads it.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    autoencoders
        The dictionary of every layer that has one.
    prompts
        Token ids of the prompts, the first ``settings.latent_prompts`` of which are completed.
    settings
        Numbers of prompts, of new tokens and of copies with noise, and size of a batch.
    seed
        Seed of samples and noise.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`latent_shifts`, whose texts are the completions. Without two prompts
        there is no row.
    """
    prompts, size = prompts[: settings.latent_prompts], settings.batch_size
    if len(prompts) < 2:
        return pd.DataFrame(columns=SHIFTS)

    def means(model: PreTrainedModel) -> dict[int, np.ndarray]:
        parts = sampled(model, pair.tokenizer, prompts, settings.new_tokens, size, seed)
        answers = [row for part in parts for row in masked_rows(part.response, part.mask)]
        texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        fronts = [len(prompt) for prompt in prompts]
        return _text_means(pair, pair.base, autoencoders, texts, size, fronts)

    return _shifts(pair, means, settings, seed, COMPLETIONS)


def _shifts(
    pair: Pair,
    means: Callable[[PreTrainedModel], dict[int, np.ndarray]],
    settings: Change,
    seed: int,
    text: str,
) -> pd.DataFrame:
    """The shifts of the policy and of copies with noise, where `means` are those of a model."""
    before, frames = means(pair.base), []
    for draw in range(-1, settings.noise_draws):
        subject = "policy" if draw < 0 else f"{NOISE} {draw}"
        model = pair.policy if draw < 0 else with_noise(pair.base, pair.policy, seed + draw)
        for layer, values in means(model).items():
            shift = values - before[layer]
            frames.append(
                pd.DataFrame({
                    "subject": subject, "text": text, "layer": layer,
                    "latent": range(shift.shape[1]), "before": before[layer].mean(0),
                    "value": shift.mean(0), "error": shift.std(0, ddof=1) / np.sqrt(len(shift)),
                    "texts": len(shift),
                })
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SHIFTS)


@torch.inference_mode()
def _text_means(
    pair: Pair,
    model: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    sequences: Sequence[Sequence[int]],
    batch_size: int,
    fronts: Sequence[int],
) -> dict[int, np.ndarray]:
    """The mean activation of every latent in every text, [text, latent] by layer.

    As many tokens as `fronts` has for a text are left out in front of it.
    """
    added, pad = len(added_tokens(pair.tokenizer)[0]), pair.tokenizer.pad_token_id
    layers, site, left = list(autoencoders), site_of(autoencoders), torch.tensor(fronts)
    means = {n: np.zeros((len(sequences), sae.d_sae)) for n, sae in autoencoders.items()}
    read = site_activations(model, sequences, layers, pad, batch_size, site=site)
    for index, mask, outputs in read:
        behind = torch.arange(mask.shape[1]) >= left[torch.as_tensor(index)][:, None]
        kept = behind.to(mask.device)[mask]
        owner = mask.nonzero()[:, 0][kept]
        number = torch.bincount(owner, minlength=len(index)).clamp(min=1)
        for layer, sae in autoencoders.items():
            code = sae.text_latents(outputs[layer], mask, added).double()[kept]
            sums = code.new_zeros(len(index), sae.d_sae).index_add_(0, owner, code)
            means[layer][index] = (sums / number[:, None]).cpu().numpy()
    return means
