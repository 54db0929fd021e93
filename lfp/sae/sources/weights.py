"""Weights that others have trained, as autoencoders of this package.

Every format is first read as the tensors that SAELens names, with what else tells how a code comes
from them. Where a decoder bias is taken off the activations in front of the encoder, it goes into
the encoder's biases; where directions have other norms than 1, latents are multiplied by them, so
that a reconstruction stays what it was and a latent has the size of its contribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lfp.files.hub import SourceError
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.sources.files import Dictionary
from lfp.sae.store import TRAINED_AS

#: Largest distance of a direction's norm from 1 that is rounding.
ROUNDING = 1e-4
#: Tensors that have an entry, or a column of the encoder, for each latent, and grow with it.
_GROWING = ("W_enc", "b_enc", "b_gate", "b_mag", "threshold")


@dataclass
class Trained:
    """A dictionary as its file has it.

    ``kind`` is the name of an architecture of this package with its ``options``, ``weights`` are by
    SAELens's names. ``centred`` says whether the decoder's bias is taken off the activations first,
    and ``scaled`` whether latents are chosen after they have been multiplied by the norms of their
    directions.
    """

    kind: str
    weights: dict[str, torch.Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    centred: bool = False
    scaled: bool = False


def read(files: Dictionary, format_name: str) -> SparseAutoencoder:
    """The autoencoder in the files of a dictionary of a format.

    Raises SourceError where tensors are missing or not finite, or where it computes something that
    no architecture of this package does.
    """
    tensors = _tensors(files)
    trained = _READERS[format_name](files, tensors)
    for name, value in trained.weights.items():
        if not torch.isfinite(value).all():
            raise SourceError(
                f"{files.weights}: the tensor {name} holds NaN or infinity; fetch it again, or take"
                " another dictionary"
            )
    if trained.centred:
        _uncentre(trained.weights)
    _make_unit(trained, files)
    rows, width = trained.weights["W_dec"].shape
    sae = ARCHITECTURES[trained.kind](width, rows, tied=False, **trained.options)
    wanted, given = sae.weights(), trained.weights
    wrong = [name for name in wanted if given[name].shape != wanted[name].shape]
    if wrong:
        raise SourceError(
            f"{files.weights}: the tensor {wrong[0]} is {list(given[wrong[0]].shape)}, expected"
            f" {list(wanted[wrong[0]].shape)}; it is of another dictionary, or damaged"
        )
    sae.set_weights(given)
    return sae.eval().requires_grad_(False)


def _tensors(files: Dictionary) -> dict[str, torch.Tensor]:
    """All tensors of a file of weights by name; numbers with a point are float32."""
    try:
        if files.weights.suffix == ".npz":
            with np.load(files.weights, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            tensors = load_file(files.weights)
    except (SafetensorError, ValueError, OSError, TypeError) as error:
        raise SourceError(
            f"{files.weights}: no tensors can be read ({error}); fetch it again"
        ) from error
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def _take(
    files: Dictionary, tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """The tensors with the values of `names` under its keys; SourceError where one is missing."""
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        raise SourceError(
            f"{files.weights}: the tensor {missing[0]} is missing among"
            f" {', '.join(sorted(tensors))}; correct `format`, or fetch the whole dictionary"
        )
    return {ours: tensors[theirs] for ours, theirs in names.items()}


def _uncentre(weights: dict[str, torch.Tensor]) -> None:
    """Take the subtraction of the decoder's bias from the activations into the other biases."""
    moved = weights["b_dec"] @ weights["W_enc"]
    if "b_mag" in weights:
        weights["b_mag"] = weights["b_mag"] - weights["r_mag"].exp() * moved
    bias = "b_gate" if "b_gate" in weights else "b_enc"
    weights[bias] = weights[bias] - moved


def _make_unit(trained: Trained, files: Dictionary) -> None:
    """Give directions the norm 1, and their latents what they lose."""
    weights = trained.weights
    norms = weights["W_dec"].norm(dim=1)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    if (norms - 1).abs().max() <= ROUNDING:
        return
    alike = (norms - norms.mean()).abs().max() <= ROUNDING * norms.mean()
    if trained.kind == "topk" and not (trained.scaled or alike):
        raise SourceError(
            f"{files.weights}: its directions have norms from {norms.min():.3g} to"
            f" {norms.max():.3g}, and its k largest latents are chosen without them, which no"
            " architecture here does; give one with directions of one norm"
        )
    weights["W_dec"] = weights["W_dec"] / norms[:, None]
    for name in _GROWING:
        if name in weights:
            weights[name] = weights[name] * norms


# -------------------------------------------------------------------------------------- the formats


def _saelens(files: Dictionary, tensors: dict[str, torch.Tensor]) -> Trained:
    """SAELens, of this package's export or of the release 5 or 6."""
    config = files.description()
    kind = config.get(TRAINED_AS) or config.get("architecture", "standard")
    activation = str(config.get("activation_fn", config.get("activation_fn_str", "relu")))
    if kind == "standard" and activation == "topk":  # the name that release 5 gave it
        kind = "topk"
        config = {"k": (config.get("activation_fn_kwargs") or {}).get("k")} | config
    elif activation not in ("relu", "topk"):
        raise SourceError(
            f"{files.config}: activation {activation!r} is not relu, or topk of release 5, which no"
            " architecture here computes; take a dictionary with one of these"
        )
    if kind not in ARCHITECTURES:
        raise SourceError(
            f"{files.config}: architecture {kind!r} is not one of {', '.join(ARCHITECTURES)}; take"
            " a dictionary of one of these"
        )
    _refuse_transforms(files, config)
    unknown = [name for name in ARCHITECTURES[kind].options if config.get(name) is None]
    if unknown:
        raise SourceError(f"{files.config}: {kind} needs {unknown[0]!r}; fetch the file again")
    expected = ARCHITECTURES[kind](1, 1).weights()
    return Trained(
        kind,
        _take(files, tensors, {name: name for name in expected}),
        {name: config[name] for name in ARCHITECTURES[kind].options},
        # Where nothing is said, SAELens takes the bias off; for a pursuit it is part of the code.
        centred=ARCHITECTURES[kind].encodes_apart and config.get("apply_b_dec_to_input", True),
        scaled=bool(config.get("rescale_acts_by_decoder_norm")),
    )


def _refuse_transforms(files: Dictionary, config: Mapping[str, Any]) -> None:
    """Raise SourceError where activations are changed in front of the encoder."""
    harmless = {
        "normalize_activations": (None, "none"), "reshape_activations": (None, "none", "hook_z"),
        "finetuning_scaling_factor": (None, False),
    }  # fmt: skip
    for key, values in harmless.items():
        if config.get(key) not in values:
            raise SourceError(
                f"{files.config}: {key} is {config[key]!r}, and activations are read as they are;"
                " fold it into the weights with SAELens, and save the dictionary again"
            )


def _gemma_scope(files: Dictionary, tensors: dict[str, torch.Tensor]) -> Trained:
    """Gemma Scope: JumpReLU, with names in large letters, or in small ones since its second."""
    named = {name.lower(): value for name, value in tensors.items()}
    names = {name: name.lower() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    weights = _take(files, named, names)
    # A transcoder may have a connection around its latents; factors of 1 change nothing.
    further = sorted(
        name
        for name in named.keys() - names.values()
        if name != "scaling_factor" or (named[name] != 1).any()
    )
    if further:
        raise SourceError(
            f"{files.weights}: the tensor {further[0]} is none of a JumpReLU autoencoder; give a"
            " dictionary that reconstructs what it reads, and no transcoder"
        )
    return Trained("jumprelu", weights)


#: Names of tensors of dictionary_learning by SAELens's, where layers of torch hold them.
_LINEAR = {"W_enc": "encoder.weight", "W_dec": "decoder.weight"}
_MATRICES = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
_WITH_BIAS = {**_LINEAR, "b_enc": "encoder.bias", "b_dec": "b_dec"}
#: Architecture, names of tensors, and whether the bias is taken off first, by dictionary_learning's
#: class.
_CLASSES: dict[str, tuple[str, dict[str, str], bool]] = {
    "AutoEncoder": ("standard", {**_WITH_BIAS, "b_dec": "bias"}, True),
    "AutoEncoderNew": ("standard", {**_WITH_BIAS, "b_dec": "decoder.bias"}, False),
    "AutoEncoderTopK": ("topk", _WITH_BIAS, True),
    "BatchTopKSAE": ("batchtopk", {**_WITH_BIAS, "threshold": "threshold"}, True),
    "MatryoshkaBatchTopKSAE": ("batchtopk", {**_MATRICES, "threshold": "threshold"}, True),
    "JumpReluAutoEncoder": ("jumprelu", {**_MATRICES, "threshold": "threshold"}, False),
    "GatedAutoEncoder": (
        "gated",
        {
            **_LINEAR, "b_gate": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag",
            "b_dec": "decoder_bias",
        },
        True,
    ),
}  # fmt: skip


def _dictionary_learning(files: Dictionary, tensors: dict[str, torch.Tensor]) -> Trained:
    """A dictionary of dictionary_learning whose weights were converted to safetensors."""
    trainer = files.description().get("trainer") or {}
    name = trainer.get("dict_class")
    if name not in _CLASSES:
        raise SourceError(
            f"{files.config}: trainer.dict_class is {name!r}, expected one of"
            f" {', '.join(_CLASSES)}; take a dictionary of one of these"
        )
    kind, names, centred = _CLASSES[name]
    weights = _take(files, tensors, names)
    if names["W_enc"] == _LINEAR["W_enc"]:  # layers of torch hold matrices by their outputs
        weights |= {matrix: weights[matrix].T.contiguous() for matrix in ("W_enc", "W_dec")}
    options = {}
    if "k" in ARCHITECTURES[kind].options:
        k = trainer.get("k", tensors.get("k"))
        if k is None:
            raise SourceError(f"{files.config}: trainer.k is missing; fetch the file again")
        options["k"] = int(k)
    if "threshold" in weights:  # one for all latents, or one for each
        weights["threshold"] = weights["threshold"].expand(len(weights["W_dec"])).clone()
    return Trained(kind, weights, options, centred)


_READERS: dict[str, Callable[[Dictionary, dict[str, torch.Tensor]], Trained]] = {
    "saelens": _saelens, "gemma_scope": _gemma_scope, "dictionary_learning": _dictionary_learning,
}  # fmt: skip
