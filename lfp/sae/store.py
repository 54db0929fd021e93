"""Autoencoders on disk in SAELens's layout.

A layer's autoencoders of one variant are one artefact, a directory with a folder for each size.
Later stages ask for them by place among the sizes (:func:`load_layers`). The layer and the site of
an autoencoder stand in its own configuration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from lfp.files.artefacts import read_table, readable
from lfp.files.provenance import ArtefactError, rebuild_hint
from lfp.sae.architectures import ARCHITECTURES, check_registered
from lfp.sae.architectures.base import SparseAutoencoder

#: The folder of the autoencoder of the first size from another seed.
OTHER_SEED = "other_seed"
#: The file of the losses by step of a layer's autoencoders.
CURVE = "curve.parquet"
#: The architecture of an autoencoder that SAELens opens by another name.
TRAINED_AS = "trained_as"


def save(sae: SparseAutoencoder, directory: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors`` as SAELens 6 loads them.

    `metadata` is kept under the key of that name. Where SAELens opens the architecture by another
    name, that one stands as ``architecture``, and ours as :data:`TRAINED_AS`. Tied weights are
    written as two contiguous copies; ``apply_b_dec_to_input`` must be false explicitly, else
    SAELens subtracts the decoder bias from the input. Raises TypeError for a class that is not
    registered.
    """
    check_registered(sae)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().float().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in sae.weights().items()
    }
    save_file(weights, directory / "sae_weights.safetensors")
    config = {
        "architecture": sae.opened_as or sae.architecture,
        "d_in": sae.d_in, "d_sae": sae.d_sae, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": False, "normalize_activations": "none",
        "reshape_activations": "none", **{name: getattr(sae, name) for name in sae.options},
    }  # fmt: skip
    if config["architecture"] != sae.architecture:
        config[TRAINED_AS] = sae.architecture
    about = {"sae_lens_version": "6.0.0", "tied": sae.tied, "site": sae.site, "layer": sae.layer}
    about["reads"] = sae.reads
    about["largest_norm"] = sae.largest_norm if math.isfinite(sae.largest_norm) else None
    config["metadata"] = about | dict(metadata)
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    (directory / "cfg.json").write_text(text, encoding="utf-8")


def save_layer(
    directory: Path,
    sizes: Sequence[int],
    autoencoders: Sequence[SparseAutoencoder],
    l1: Sequence[float | None],
    metadata: Mapping[str, Any],
) -> None:
    """Write a layer's autoencoders of one variant, each with :func:`save`.

    Parameters
    ----------
    directory
        The layer's directory.
    sizes
        Numbers of latents in multiples of the width, in the order of the autoencoders.
    autoencoders
        One of each size, and behind them one of the first size from another seed, if there is one.
    l1
        The penalty of each at the end of its training; None where none is known.
    metadata
        Their origin and settings.
    """
    folders = [(size_folder(directory, size), size) for size in sizes]
    folders.append((directory / OTHER_SEED, sizes[0]))
    for (folder, size), sae, penalty in zip(folders, autoencoders, l1, strict=False):
        save(sae, folder, {**metadata, "l1": penalty, "size": size})


def load(directory: str | Path, device: str = "cpu") -> SparseAutoencoder:
    """Load an autoencoder written by :func:`save`, by its architecture.

    In memory it is always untied, with equal encode and decode. Raises ArtefactError where the
    architecture is not one of :data:`~lfp.sae.architectures.ARCHITECTURES`.
    """
    directory = Path(directory)
    with readable(directory) as checked:
        config = read_config(checked)
        weights = load_file(checked / "sae_weights.safetensors")
    name = config.get(TRAINED_AS, config["architecture"])
    if name not in ARCHITECTURES:
        raise ArtefactError(
            f"{directory}/cfg.json: architecture {name!r} is not one of"
            f" {', '.join(ARCHITECTURES)}; retrain it with one of them"
        )
    kind = ARCHITECTURES[name]
    options = {name: config[name] for name in kind.options}
    sae = kind(config["d_in"], config["d_sae"], tied=False, **options)
    sae.metadata = config["metadata"]
    sae.site, sae.layer = sae.metadata["site"], sae.metadata["layer"]
    sae.reads = sae.metadata["reads"]
    limit = sae.metadata["largest_norm"]
    sae.largest_norm = math.inf if limit is None else limit
    sae.set_weights(weights)
    return sae.to(device).eval().requires_grad_(False)


def read_config(directory: str | Path) -> dict[str, Any]:
    """The configuration of one autoencoder."""
    return json.loads((Path(directory) / "cfg.json").read_text(encoding="utf-8"))


def size_folder(directory: str | Path, size: int) -> Path:
    """The folder in a layer's `directory` of the autoencoder of a size.

    The size is the number of latents in multiples of the width.
    """
    return Path(directory) / f"x{size}"


def sizes(directory: str | Path) -> list[int]:
    """The sizes of a layer's autoencoders in multiples of the width, ascending."""
    names = (path.name for path in Path(directory).glob("x*"))
    return sorted(int(name[1:]) for name in names if name[1:].isdigit())


def by_layer(directories: Sequence[str | Path]) -> dict[int, Path]:
    """The directories of several layers by layer, ascending.

    Raises FileNotFoundError for a directory that holds no autoencoder.
    """
    layers = {}
    for directory in map(Path, directories):
        if not sizes(directory):
            raise FileNotFoundError(
                f"{directory}: no autoencoder is there; {rebuild_hint(directory)}"
            )
        smallest = read_config(size_folder(directory, sizes(directory)[0]))
        layers[smallest["metadata"]["layer"]] = directory
    return dict(sorted(layers.items()))


def curves(directories: Mapping[int, Path]) -> pd.DataFrame:
    """The curves of training of all layers, with their column ``layer``."""
    return pd.concat(
        [read_table(path / CURVE).assign(layer=layer) for layer, path in directories.items()],
        ignore_index=True,
    )


def load_sizes(
    directories: Sequence[str | Path], device: str = "cpu"
) -> dict[int, list[SparseAutoencoder]]:
    """The autoencoders of several layers by layer, ascending.

    Those of a layer are in the order of their sizes. Raises FileNotFoundError for a directory that
    holds none.
    """
    return {
        layer: [load(size_folder(directory, size), device) for size in sizes(directory)]
        for layer, directory in by_layer(directories).items()
    }


def load_other_seed(directory: str | Path, device: str = "cpu") -> SparseAutoencoder | None:
    """The autoencoder of a layer's first size from another seed; None where none was trained."""
    folder = Path(directory) / OTHER_SEED
    return load(folder, device) if folder.exists() else None


def load_layers(
    directories: Sequence[str | Path], device: str = "cpu", place: int = 0
) -> dict[int, SparseAutoencoder]:
    """The autoencoders of several layers by layer, ascending.

    `place` counts a layer's sizes: 0 is the smallest, which is probed, explained and
    ablated, and -1 the largest.
    """
    return {layer: saes[place] for layer, saes in load_sizes(directories, device).items()}


def size_of(sae: SparseAutoencoder) -> int:
    """The size of an autoencoder in multiples of the width, as its folder has it.

    It is not always the number of latents over the width: one that is collected may have fewer
    latents than were asked for, and one from elsewhere any number of them.
    """
    return sae.metadata.get("size", sae.d_sae // sae.width)


def described(sae: SparseAutoencoder) -> dict[str, Any]:
    """Description of a loaded autoencoder for tables.

    It has the architecture, under ``options`` the settings that are the architecture's own, the
    activations that it learned from, the size in multiples of the width, the number of latents, and
    whether it was tied; also the largest norm of what is no outlier, and the number of tokens that
    were left out of its training, whether the held-out loss had become flat, after how many steps
    training ended, and the file that a pretrained one comes from.
    """
    options = {name: getattr(sae, name) for name in sae.options}
    return {
        "architecture": sae.architecture,
        "options": options | {name: sae.metadata[name] for name in sae.penalties},
        "site": sae.site,
        "reads": sae.reads,
        "size": size_of(sae),
        "d_sae": sae.d_sae,
        "tied": sae.metadata["tied"],
        "largest_norm": sae.metadata["largest_norm"],
        "left_out_of_training": sae.metadata["left_out_of_training"],
        "flat": sae.metadata["flat"],
        "steps": sae.metadata["steps"],
        "origin": sae.metadata.get("origin", "trained here"),
    }
