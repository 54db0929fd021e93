"""Files of dictionaries that others have trained, and what can be said of them before any job.

No weight is read here, and no library of science is loaded: the sizes of tensors stand in front of
them, in safetensors files and in NumPy's alike.
"""

from __future__ import annotations

import ast
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfp.files.checkpoints import read_object
from lfp.files.hub import SourceError
from lfp.settings import Source

#: What stands for the number of the layer in the name of a dictionary's files.
LAYER = "{layer}"
#: Endings of files that run code when they are read.
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
CONVERT = (
    'where you trust it, convert it beside itself: python -c "import torch; from'
    " safetensors.torch import save_file; save_file({k: v.contiguous() for k, v in"
    " torch.load('ae.pt', map_location='cpu', weights_only=True).items()},"
    " 'ae.safetensors')\", and give the folder by `path`"
)
#: Latents of a dictionary of the hub whose name does not say how many it has: those of SAELens's
#: releases for small models.
USUAL_LATENTS = 2**15
#: Bytes of the header of a NumPy or safetensors file, at most.
_LONGEST = 2**24
#: Names of hooks of TransformerLens by the site that they read.
_HOOKS = {
    "hook_mlp_out": "mlp", "hook_resid_post": "resid", "hook_resid_pre": "resid",
    "hook_attn_out": "attn", "attn.hook_z": "heads",
}  # fmt: skip
#: Beginnings of the names of dictionary_learning's submodules by the site that they read.
_SUBMODULES = {
    "resid_post": "resid", "resid_out": "resid", "mlp_out": "mlp", "attention_out": "attn",
    "attn_out": "attn",
}  # fmt: skip
#: Beginnings of its names of other places; any other name says nothing.
_OTHER_SUBMODULES = ("resid_", "mlp_", "attention_", "attn_", "ln")


@dataclass(frozen=True)
class Layout:
    """The files of a dictionary's folder: weights, one of several names, and their description.

    ``config`` is None where the weights need none.
    """

    weights: tuple[str, ...]
    config: str | None


LAYOUTS = {
    "saelens": Layout(("sae_weights.safetensors",), "cfg.json"),
    "gemma_scope": Layout(("params.npz", "params.safetensors"), None),
    "dictionary_learning": Layout(("ae.safetensors",), "config.json"),
}


@dataclass(frozen=True)
class Dictionary:
    """The files of one layer's dictionary."""

    weights: Path
    config: Path | None

    @property
    def all(self) -> list[Path]:
        """Both files, or the one that there is."""
        return [path for path in (self.weights, self.config) if path]

    def description(self) -> dict[str, Any]:
        """What the file beside the weights says; nothing where there is none."""
        return read_object(self.config) if self.config else {}


def patterns(source: Source, layer: int) -> list[str]:
    """Names of the files of a layer's dictionary in a repository, none of which runs code."""
    name, layout = source.files.replace(LAYER, str(layer)), LAYOUTS[source.format]
    if name.endswith((".npz", ".safetensors")):
        return [name]
    files = [*layout.weights, layout.config]
    return [f"{name.rstrip('/')}/{file}" for file in files if file]


def dictionary_files(root: str | Path, source: Source, layer: int, origin: str) -> Dictionary:
    """The files below `root` of a layer's dictionary.

    Raises SourceError, with `origin` in front, where there is not exactly one, or where a file of
    it is missing; a pickle in its place is named with the way to convert it.
    """
    name, layout = source.files.replace(LAYER, str(layer)), LAYOUTS[source.format]
    root = Path(root).expanduser()
    places = [root / name] if (root / name).exists() else sorted(root.glob(name))
    if len(places) != 1:
        several = ", ".join(str(place.relative_to(root)) for place in places[:5])
        raise SourceError(
            f"{origin}: expected one folder or file for layer {layer} by the name {name!r}, got"
            f" {several or 'none'}; correct `files`"
        )
    [place] = places
    if place.is_file():
        if layout.config or place.suffix not in (".npz", ".safetensors"):
            expected = "a folder" if layout.config else "an .npz or .safetensors file"
            raise SourceError(f"{origin}: {place} is a file, expected {expected}; correct `files`")
        return Dictionary(place, None)
    weights = next((place / file for file in layout.weights if (place / file).is_file()), None)
    if weights is None:
        _refuse_pickles(place, origin)
        raise SourceError(
            f"{origin}: {place} has no {' or '.join(layout.weights)}; correct `files` or `format`"
        )
    if layout.config and not (place / layout.config).is_file():
        raise SourceError(
            f"{origin}: {place} has no {layout.config}, which says what its weights are; fetch the"
            " whole folder, or correct `format`"
        )
    return Dictionary(weights, place / layout.config if layout.config else None)


def _refuse_pickles(place: Path, origin: str) -> None:
    pickles = sorted(path.name for path in place.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise SourceError(
            f"{origin}: {place / pickles[0]} is a pickle, which can run code and is never read;"
            f" {CONVERT.replace('ae.pt', pickles[0])}"
        )


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The sizes of the tensors in a file of weights, by name; SourceError where it is damaged."""
    try:
        return _npz_shapes(path) if path.suffix == ".npz" else _safetensors_shapes(path)
    except (ValueError, KeyError, TypeError, SyntaxError, OSError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{path}: no tensors can be read ({error}); it is damaged or cut short: copy or fetch"
            " it again"
        ) from error


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    result = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                start = file.read(8)
                if start[:6] != b"\x93NUMPY":
                    raise ValueError(f"{name} is no array of NumPy")
                length = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
                header = ast.literal_eval(file.read(min(length, _LONGEST)).decode("latin-1"))
            if "O" in str(header["descr"]):
                raise ValueError(f"{name} holds objects, which can run code, and no numbers")
            result[name.removesuffix(".npy")] = tuple(header["shape"])
    return result


def size(files: Dictionary) -> tuple[int, int]:
    """Width of the activations and number of latents of a dictionary.

    Raises SourceError where its weights have no decoder.
    """
    by_name = {name.lower(): shape for name, shape in shapes(files.weights).items()}
    for name, by_latent in (("w_dec", True), ("decoder.weight", False)):
        if len(by_name.get(name, ())) == 2:
            rows, columns = by_name[name]
            return (columns, rows) if by_latent else (rows, columns)
    raise SourceError(
        f"{files.weights}: expected the decoder W_dec or decoder.weight, got"
        f" {', '.join(sorted(by_name)) or 'nothing'}; correct `format`"
    )


def latents_of(source: Source, layer: int) -> int:
    """The number of latents of a layer's dictionary, for an estimate of costs.

    Its file says it where it is at hand, and the name of one of Gemma Scope, such as
    ``width_16k``; of any other on the hub it is taken to be :data:`USUAL_LATENTS`.
    """
    if source.path is not None:
        return size(dictionary_files(source.path, source, layer, source.path))[1]
    named = re.search(r"width_(\d+)(k|m)(?![a-z\d])", source.files)
    if named is None:
        return USUAL_LATENTS
    return 2 ** round(math.log2(int(named[1]) * {"k": 1e3, "m": 1e6}[named[2]]))


def read_place(description: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """The layer and the site that a dictionary's description says it reads, as far as it does.

    A place that is none of our sites has the name that the description gives it.
    """
    about = description.get("metadata") or {}
    trainer = description.get("trainer") or {}
    if "site" in about and "layer" in about:
        return about["layer"], about["site"]
    hook = str(about.get("hook_name") or description.get("hook_name") or "")
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", hook):
        behind = int(match[1]) - (match[2] == "hook_resid_pre")
        return behind, _HOOKS.get(match[2], match[2])
    layer, module = trainer.get("layer"), str(trainer.get("submodule_name") or "")
    elsewhere = module if module.startswith(_OTHER_SUBMODULES) else None
    sites = (site for start, site in _SUBMODULES.items() if module.startswith(start))
    return layer if isinstance(layer, int) else None, next(sites, elsewhere)


def check(files: Dictionary, layer: int, site: str, width: int | None, origin: str) -> None:
    """Check that a dictionary is one of a layer's site.

    Parameters
    ----------
    files
        Its files.
    layer, site
        Where it is to read.
    width
        The site's width in the model; None where nothing says it.
    origin
        What stands in front of a message.

    Raises
    ------
    SourceError
        Where its decoder has another width, or it says of itself that it reads another place.
    """
    d_in, _ = size(files)
    if width and d_in != width:
        raise SourceError(
            f"{origin}: {files.weights} reads activations of {d_in} dimensions, and {site} of the"
            f" model has {width}; correct `files` or `site`, or take a dictionary of this model"
        )
    named_layer, named_site = read_place(files.description())
    if named_layer not in (None, layer) or named_site not in (None, site):
        raise SourceError(
            f"{origin}: {files.config} says that it reads {named_site or 'a site'} of layer"
            f" {named_layer}, not {site} of layer {layer}; correct `files` or `site`"
        )
