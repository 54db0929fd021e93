"""Dictionaries that SAELens, Gemma Scope's layout and dictionary_learning have, written by these
packages, are taken by `architecture: pretrained` with equal codes: run by `make test-interop`.

The folder with the files is the environment variable LFP_PEERS (tests/interop/peers.py writes it).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lfp.files.hub import SourceError
from lfp.grid import Grid
from lfp.sae import store
from lfp.sae.sources.files import check, dictionary_files
from lfp.sae.sources.weights import read
from lfp.settings import Source
from tests.test_configuration import changed

FOLDER = Path(os.environ["LFP_PEERS"])
EXPECTED = load_file(FOLDER / "expected.safetensors")
WIDTH, LAYER = EXPECTED["x"].shape[1], 1
#: Cases by layout, and the files of a layer below the folder of a case.
FILES = {
    "saelens": "layer_{layer}",
    "gemma_scope": "{place}",
    "dictionary_learning": "layer_{layer}/trainer_0",
}
PLACES = {
    "first": "layer_{layer}/width_16k/average_l0_*",
    "second": "resid_post/layer_{layer}_width_16k_l0_small",
}
CASES = sorted({tuple(name.split(".")[:2]) for name in EXPECTED if "." in name})
#: What each becomes here.
BECOMES = {
    "standard": "standard", "centred": "standard", "topk": "topk", "topk_of_norms": "topk",
    "jumprelu": "jumprelu", "gated": "gated", "first": "jumprelu", "second": "jumprelu",
    "april": "standard", "annealed": "standard",
    ("saelens", "batchtopk"): "jumprelu", ("saelens", "matryoshka"): "jumprelu",
    "batchtopk": "batchtopk", "matryoshka": "batchtopk",
}  # fmt: skip


def source_of(layout: str, name: str, folder: Path = FOLDER) -> dict[str, str]:
    """The `source` of a case, as a configuration gives it."""
    files = FILES[layout].replace("{place}", PLACES.get(name, ""))
    return {"path": str(folder / layout / name), "format": layout, "files": files}


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The dictionaries, where the pickles of dictionary_learning were converted as we say."""
    folder = tmp_path_factory.mktemp("converted") / "peers"
    shutil.copytree(FOLDER, folder)
    for pickle in folder.rglob("ae.pt"):
        layout, name = pickle.relative_to(folder).parts[:2]
        source = Source.of(source_of(layout, name, folder))
        with pytest.raises(SourceError, match="is a pickle, which can run code") as error:
            dictionary_files(source.path, source, LAYER, "path")
        command = re.search(r'python -c "[^"]*"', str(error.value))[0]
        program = shlex.split(command)[2]
        subprocess.run([sys.executable, "-c", program], cwd=pickle.parent, check=True)
    return folder


def taken(folder: Path, layout: str, name: str):
    """The dictionary of a case, as the jobs take it and later stages read it."""
    source = Source.of(source_of(layout, name, folder))
    files = dictionary_files(source.path, source, LAYER, "path")
    check(files, LAYER, "resid", WIDTH, "path")
    sae = read(files, source.format)
    sae.site, sae.layer = "resid", LAYER
    store.save(sae, folder / "taken" / layout / name, {})
    return store.load(folder / "taken" / layout / name)


def test_every_layout_has_its_cases():
    counts = {layout: sum(one == layout for one, _ in CASES) for layout in FILES}
    assert counts == {"saelens": 9, "gemma_scope": 2, "dictionary_learning": 8}


def test_what_others_have_trained_has_equal_codes_here(converted):
    x = torch.from_numpy(EXPECTED["x"])
    for layout, name in CASES:
        if name == "pursuit":
            continue
        sae, key = taken(converted, layout, name), f"{layout}.{name}"
        code = sae.encode(x)
        assert sae.architecture == BECOMES.get((layout, name), BECOMES.get(name)), key
        assert 0 < (code > 0).float().mean() < 1, key
        near = {"atol": 2e-5, "rtol": 1e-4, "err_msg": key}
        np.testing.assert_allclose(code.numpy(), EXPECTED[f"{key}.code"], **near)
        np.testing.assert_allclose(sae.decode(code).numpy(), EXPECTED[f"{key}.output"], **near)


def test_an_architecture_that_none_here_computes_is_refused_by_name():
    with pytest.raises(SourceError, match="architecture 'matching_pursuit' is not one of"):
        taken(FOLDER, "saelens", "pursuit")


def test_a_configuration_with_all_of_them_is_planned(converted):
    organism = {
        "architecture": "gpt_neox", "corpora": ["reviews"], "n_layers": 2, "d_model": WIDTH,
        "n_heads": 2,
    }  # fmt: skip
    variants = {
        f"{layout}_{name}": {
            "architecture": "pretrained", "site": "resid",
            "source": source_of(layout, name, converted),
        }
        for layout, name in CASES
    }  # fmt: skip
    cell = {"model": "tiny", "task": "vader", "layers": [LAYER], "autoencoders": [*variants]}
    config = changed(models__tiny={"organism": organism}, autoencoders=variants, cells=[cell])
    grid = Grid(config)
    sizes = grid.estimate_settings()["cells"][0]["about"]["autoencoders"]
    assert {values["sizes"][0] for values in sizes.values()} == {1.5}
