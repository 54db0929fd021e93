"""Dictionaries that others have trained: what their files say is what is computed here, no pickle
is read, and what does not fit stops before any job.
"""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lfp import planning
from lfp.configuration import ConfigurationError
from lfp.files import artefacts
from lfp.files.hub import SourceError
from lfp.grid import Grid
from lfp.planning import Planner
from lfp.sae import outliers, store
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.matching import agreement
from lfp.sae.sources import files
from lfp.sae.sources.weights import read
from lfp.sae.training.loop import Trained
from lfp.settings import Autoencoder, Source
from lfp.tables.health.autoencoders import _limits, _quantities, _why
from lfp.tables.inputs import Plan
from lfp.tables.rows import TableSettings
from tests.conftest import run_job
from tests.hub import COMMIT, Hub
from tests.test_dictionaries import random_autoencoder
from tests.test_planning import Wildcards

WIDTH, LATENTS = 8, 20


def opened(folder, format_name: str, layer: int = 3, name: str = "layer_{layer}"):
    source = Source(path=str(folder), format=format_name, files=name)
    place = files.dictionary_files(folder, source, layer, "path")
    return read(place, format_name)


def tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def described(folder, config: dict, weights: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_round_trip_of_an_export_is_exact(architecture, tmp_path):
    sae, x = random_autoencoder(architecture, WIDTH), torch.randn(50, WIDTH)
    sae.site, sae.layer = "resid", 3
    store.save(sae, tmp_path / "layer_3", {})
    loaded, again = store.load(tmp_path / "layer_3"), opened(tmp_path, "saelens")
    assert type(again) is type(sae)
    for name, value in loaded.weights().items():
        assert torch.equal(value, again.weights()[name]), name
    assert torch.equal(loaded.encode(x), again.encode(x))
    assert torch.equal(loaded.decode(loaded.encode(x)), again.decode(again.encode(x)))
    assert all(getattr(again, name) == getattr(sae, name) for name in sae.options)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("unit", [True, False])
def test_gemma_scope_encodes_and_decodes_by_its_formula(kind, unit, tmp_path):
    weights = tensors(
        W_enc=(WIDTH, LATENTS), W_dec=(LATENTS, WIDTH), b_enc=(LATENTS,), b_dec=(WIDTH,)
    )
    weights["threshold"] = torch.rand(LATENTS)
    if unit:
        weights["W_dec"] = F.normalize(weights["W_dec"], dim=1)
    place = tmp_path / "layer_3" / "width_16k" / "average_l0_71"
    place.mkdir(parents=True)
    if kind == "npz":
        np.savez(place / "params.npz", **{n: value.numpy() for n, value in weights.items()})
    else:  # its second release has small letters
        save_file({n.lower(): value for n, value in weights.items()}, place / "params.safetensors")
    sae = opened(tmp_path, "gemma_scope", name="layer_{layer}/width_16k/average_l0_*")
    x = torch.randn(100, WIDTH)
    pre = x @ weights["W_enc"] + weights["b_enc"]
    latents = F.relu(pre) * (pre > weights["threshold"])
    output = latents @ weights["W_dec"] + weights["b_dec"]
    assert sae.architecture == "jumprelu" and 0 < (latents > 0).float().mean() < 1
    sizes = latents * weights["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.encode(x), sizes, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sae.decode(sae.encode(x)), output, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(LATENTS))


def saelens_case(name: str) -> tuple[dict, dict, object]:
    """A configuration of SAELens, its weights, and latents times their directions' norms."""
    w = tensors(W_enc=(WIDTH, LATENTS), W_dec=(LATENTS, WIDTH), b_enc=(LATENTS,), b_dec=(WIDTH,))
    config = {"d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32", "architecture": "standard"}
    norms = w["W_dec"].norm(dim=1)

    def pre(x: torch.Tensor) -> torch.Tensor:
        return (x - w["b_dec"]) @ w["W_enc"]

    def topk(values: torch.Tensor) -> torch.Tensor:
        top = values.topk(4)
        return torch.zeros_like(values).scatter(1, top.indices, F.relu(top.values))

    if name == "standard":  # nothing said: the bias is taken off first
        return config, w, lambda x: F.relu(pre(x) + w["b_enc"]) * norms
    if name == "as it is":
        config |= {"apply_b_dec_to_input": False, "normalize_activations": "none"}
        return config, w, lambda x: F.relu(x @ w["W_enc"] + w["b_enc"]) * norms
    if name == "topk of release 5":
        w["W_dec"] = F.normalize(w["W_dec"], dim=1)
        config |= {"activation_fn": "topk", "activation_fn_kwargs": {"k": 4}}
        return config, w, lambda x: topk(pre(x) + w["b_enc"])
    if name == "topk by norms":
        config |= {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}
        return config, w, lambda x: topk((pre(x) + w["b_enc"]) * norms)
    if name == "jumprelu":
        w["threshold"] = torch.rand(LATENTS)
        config["architecture"] = "jumprelu"

        def jump(x: torch.Tensor) -> torch.Tensor:
            values = pre(x) + w["b_enc"]
            return F.relu(values) * (values > w["threshold"]) * norms

        return config, w, jump
    del w["b_enc"]
    w |= tensors(b_gate=(LATENTS,), b_mag=(LATENTS,), r_mag=(LATENTS,))
    config["architecture"] = "gated"

    def gated(x: torch.Tensor) -> torch.Tensor:
        size = F.relu(w["r_mag"].exp() * pre(x) + w["b_mag"])
        return size * (pre(x) + w["b_gate"] > 0) * norms

    return config, w, gated


SAELENS = ("standard", "as it is", "topk of release 5", "topk by norms", "jumprelu", "gated")


@pytest.mark.parametrize("name", SAELENS)
def test_a_dictionary_of_saelens_computes_what_its_configuration_says(name, tmp_path):
    config, weights, latents = saelens_case(name)
    described(tmp_path / "layer_3", config, weights)
    sae, x = opened(tmp_path, "saelens"), torch.randn(60, WIDTH)
    expected = latents(x)
    assert (expected > 0).any() and not (expected > 0).all()
    torch.testing.assert_close(sae.encode(x), expected, atol=1e-5, rtol=1e-4)
    output = expected @ F.normalize(weights["W_dec"], dim=1) + weights["b_dec"]
    torch.testing.assert_close(sae.decode(sae.encode(x)), output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("activation", ["tanh-relu", "gelu"])
def test_an_activation_that_nothing_here_computes_is_refused(activation, tmp_path):
    config, weights, _ = saelens_case("as it is")
    described(tmp_path / "layer_3", config | {"activation_fn_str": activation}, weights)
    with pytest.raises(SourceError, match=f"activation '{activation}' is not relu"):
        opened(tmp_path, "saelens")


def dictionary_learning_case(name: str) -> tuple[dict, object]:
    """Weights of dictionary_learning's class, and the reconstruction by its code."""
    linear = tensors(**{"encoder.weight": (LATENTS, WIDTH), "decoder.weight": (WIDTH, LATENTS)})
    w, encoder, decoder = dict(linear), linear["encoder.weight"], linear["decoder.weight"]
    if name == "AutoEncoder":
        w |= tensors(**{"encoder.bias": (LATENTS,), "bias": (WIDTH,)})
        return (
            w,
            lambda x: (
                F.relu((x - w["bias"]) @ encoder.T + w["encoder.bias"]) @ decoder.T + w["bias"]
            ),
        )
    if name == "GatedAutoEncoder":
        w |= tensors(gate_bias=(LATENTS,), mag_bias=(LATENTS,), r_mag=(LATENTS,))
        w |= tensors(decoder_bias=(WIDTH,))

        def gated(x: torch.Tensor) -> torch.Tensor:
            path = (x - w["decoder_bias"]) @ encoder.T
            code = F.relu(w["r_mag"].exp() * path + w["mag_bias"]) * (path + w["gate_bias"] > 0)
            return code @ decoder.T + w["decoder_bias"]

        return w, gated
    w |= tensors(**{"encoder.bias": (LATENTS,), "b_dec": (WIDTH,)})
    w["decoder.weight"] = decoder = F.normalize(decoder, dim=0)
    w |= {"k": torch.tensor(4), "threshold": torch.tensor(0.3)}

    def kept(x: torch.Tensor) -> torch.Tensor:
        pre = F.relu((x - w["b_dec"]) @ encoder.T + w["encoder.bias"])
        if name == "BatchTopKSAE":
            return pre * (pre > w["threshold"])
        top = pre.topk(4)
        return torch.zeros_like(pre).scatter(1, top.indices, top.values)

    return w, lambda x: kept(x) @ decoder.T + w["b_dec"]


@pytest.mark.parametrize(
    "name", ["AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"]
)
def test_a_converted_dictionary_of_dictionary_learning_reconstructs_the_same(name, tmp_path):
    weights, reconstruction = dictionary_learning_case(name)
    place, x = tmp_path / "layer_3", torch.randn(60, WIDTH)
    place.mkdir()
    save_file(weights, place / "ae.safetensors")
    trainer = {"dict_class": name, "layer": 3, "submodule_name": "resid_post_layer_3"}
    (place / "config.json").write_text(json.dumps({"trainer": trainer}))
    sae = opened(tmp_path, "dictionary_learning")
    torch.testing.assert_close(sae.reconstruct(x), reconstruction(x), atol=1e-5, rtol=1e-4)
    description = json.loads((place / "config.json").read_text())
    assert files.read_place(description) == (3, "resid")


class Touches:
    """A pickle that writes a file when it is read."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_read_and_the_message_says_how_to_convert_it(tmp_path):
    place, touched = tmp_path / "layer_3", tmp_path / "touched"
    place.mkdir()
    (place / "ae.pt").write_bytes(pickle.dumps(Touches(touched)))
    (place / "config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"ae\.pt is a pickle.*weights_only=True.*ae\.safetens"):
        opened(tmp_path, "dictionary_learning")
    objects = np.array([Touches(touched)], dtype=object)
    (tmp_path / "layer_4").mkdir()
    np.savez(tmp_path / "layer_4" / "params.npz", W_dec=objects)
    with pytest.raises(SourceError, match="no tensors can be read"):
        opened(tmp_path, "gemma_scope", layer=4)
    with pytest.raises(SourceError, match="holds objects, which can run code"):
        files.shapes(tmp_path / "layer_4" / "params.npz")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transcoder"}, "'transcoder' is not one of standard"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ({"architecture": "topk"}, "topk needs 'k'"),
        ({"architecture": "topk", "k": 3}, "norms from .* are chosen without them"),
        ({"architecture": "jumprelu"}, "the tensor threshold is missing among"),
    ],
)
def test_what_cannot_be_computed_here_is_refused(change, message, tmp_path):
    config, weights, _ = saelens_case("standard")
    described(tmp_path / "layer_3", config | change, weights)
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, "saelens")


def test_a_transcoder_in_the_layout_of_gemma_scope_is_refused(tmp_path):
    """It has the same five tensors and a sixth, without which it computes something else."""
    weights = tensors(
        w_enc=(WIDTH, LATENTS), w_dec=(LATENTS, WIDTH), b_enc=(LATENTS,), b_dec=(WIDTH,),
        threshold=(LATENTS,),
    )  # fmt: skip
    (tmp_path / "layer_3").mkdir()
    path = tmp_path / "layer_3" / "params.safetensors"
    save_file(weights | {"scaling_factor": torch.ones(LATENTS)}, path)
    assert opened(tmp_path, "gemma_scope").d_sae == LATENTS
    for further in (
        {"affine_skip_connection": torch.eye(WIDTH)},
        {"scaling_factor": torch.full((LATENTS,), 2.0)},
    ):
        save_file(weights | further, path)
        with pytest.raises(SourceError, match=f"the tensor {next(iter(further))} is none of a"):
            opened(tmp_path, "gemma_scope")


def test_values_that_are_no_numbers_are_refused(tmp_path):
    config, weights, _ = saelens_case("standard")
    weights["b_enc"][2] = float("nan")
    described(tmp_path / "layer_3", config, weights)
    with pytest.raises(SourceError, match="b_enc holds NaN"):
        opened(tmp_path, "saelens")


def test_sizes_are_read_without_the_weights(tmp_path):
    sae = random_autoencoder("gated", WIDTH)
    store.save(sae, tmp_path / "a", {})
    weights = load_file(tmp_path / "a" / "sae_weights.safetensors")
    np.savez(tmp_path / "b.npz", **{name: value.numpy() for name, value in weights.items()})
    expected = {name: tuple(value.shape) for name, value in weights.items()}
    assert files.shapes(tmp_path / "a" / "sae_weights.safetensors") == expected
    assert files.shapes(tmp_path / "b.npz") == expected
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:200])
    with pytest.raises(SourceError, match=r"c\.npz: no tensors can be read"):
        files.shapes(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("blocks.5.hook_resid_post", (5, "resid")), ("blocks.5.hook_resid_pre", (4, "resid")),
        ("blocks.5.hook_mlp_out", (5, "mlp")), ("blocks.5.attn.hook_z", (5, "heads")),
        ("blocks.5.hook_attn_out", (5, "attn")), ("gpt_neox.layers.1.mlp", (None, None)),
        ("blocks.5.hook_resid_mid", (5, "hook_resid_mid")),
        ("blocks.5.ln2.hook_normalized", (5, "ln2.hook_normalized")),
    ],
)  # fmt: skip
def test_hooks_of_saelens_name_layer_and_site(hook, place):
    assert files.read_place({"metadata": {"hook_name": hook}}) == place
    assert files.read_place({"hook_name": hook}) == place


@pytest.mark.parametrize(
    ("module", "site"),
    [
        ("resid_post_layer_3", "resid"), ("attn_out_layer_3", "attn"),
        ("attention_out_layer3", "attn"), ("gpt_neox.layers.3.mlp", None), ("model.layers.3", None),
        ("resid_pre_layer_3", "resid_pre_layer_3"), ("mlp_in_layer_3", "mlp_in_layer_3"),
    ],
)  # fmt: skip
def test_submodules_of_dictionary_learning_name_the_site(module, site):
    trainer = {"layer": 3, "submodule_name": module}
    assert files.read_place({"trainer": trainer}) == (3, site)


def configuration(folder, **variant) -> dict:
    source = {"path": str(folder), "format": "saelens", "files": "layer_{layer}"}
    scope = {"architecture": "pretrained", "site": "resid", "source": source} | variant
    organism = {"architecture": "gpt_neox", "corpora": ["reviews"], "n_layers": 2, "d_model": WIDTH}
    return {
        "corpora": {"reviews": {"organism": "reviews", "splits": {"train": 100, "test": 20}}},
        "models": {"m": {"organism": organism}},
        "tasks": {"vader": {"method": "ppo", "corpus": "reviews"}},
        "autoencoders": {"tied": {"tied": True}, "scope": {k: v for k, v in scope.items() if v}},
        "settings": {
            "divergence": {"n_layers": 1},
            "activations": {"held_out_texts": 10},
            "autoencoder": {"l0": 4},
        },
        "cells": [{"model": "m", "task": "vader", "autoencoders": ["tied", "scope"]}],
    }


@pytest.fixture
def taken(tmp_path):
    """A folder with a dictionary of each of two layers."""
    for layer in range(2):
        sae = random_autoencoder("topk", WIDTH)
        sae.site, sae.layer = "resid", layer
        store.save(sae, tmp_path / f"layer_{layer}", {})
    return tmp_path


def test_a_pretrained_dictionary_that_fits_is_planned(taken):
    grid = Grid(configuration(taken))
    [cell] = grid.cells
    assert grid.pretrained(cell) == ["scope"] and grid.dictionaries_from("path") == ["scope"]
    assert grid.dictionaries_from("hub") == [] and grid.transferred(cell) == ["tied", "scope"]
    config = configuration(taken)
    config["cells"][0]["main"] = "scope"
    config["autoencoders"]["tied"]["reads"] = "difference"
    assert Grid(config).transferred(Grid(config).cells[0]) == ["scope"]
    config["autoencoders"]["tied"] = {"architecture": "itda", "reads": "pair"}
    with pytest.raises(ConfigurationError, match="architecture `itda` has directions of one model"):
        Grid(config)
    with pytest.raises(ConfigurationError, match="`pretrained` has directions of one model"):
        Grid(configuration(taken, reads="pair"))


def test_a_dictionary_that_lies_elsewhere_reruns_nothing(taken, tmp_path_factory):
    """Its content counts, and not its path, which would be in the stamps of all that follows."""
    moved = tmp_path_factory.mktemp("elsewhere") / "dictionaries"
    shutil.copytree(taken, moved)
    of_jobs = []
    for folder in (taken, moved):
        plan = Planner(Grid(configuration(folder)), lambda cell: taken / "divergence.json")
        of_cell = {"model": "m", "task": "vader", "seed": "0", "sae": "scope", "layer": "1"}
        jobs = {
            name: planning.job(name, settings, code=lambda wildcards: "")
            for name, settings in (
                ("copy_dictionary", plan.taken_dictionary),
                ("autoencoders", plan.settings("autoencoders")),
                ("evaluate_autoencoders", plan.settings("evaluation")),
            )
        }
        named = Wildcards(of_cell)
        of_job = {name: params["settings"](named) for name, params in jobs.items()}
        of_jobs.append(of_job | {"estimate": plan.grid.estimate_settings()})
        beside = json.loads(jobs["copy_dictionary"]["unstamped"](named, output={}))
        assert beside == {"path": str(folder)}
    assert of_jobs[0] == of_jobs[1] and str(taken) not in str(of_jobs)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"site": "mlp"}, "says that it reads resid of layer 0, not mlp of layer 0"),
        ({"site": None}, "autoencoders.scope: a pretrained dictionary needs `site`"),
        ({"source": None}, "autoencoders.scope: a pretrained dictionary needs `source`"),
        ({"k": 3}, r"autoencoders.scope.k: no effect for the architecture `pretrained`"),
        ({"sizes": [1, 2]}, r"autoencoders.scope.sizes: no effect"),
    ],
)
def test_a_pretrained_dictionary_that_does_not_fit_is_refused_before_any_job(
    variant, message, taken
):
    with pytest.raises(ConfigurationError, match=message):
        Grid(configuration(taken, **variant))


def test_files_that_are_missing_or_of_another_width_are_refused_before_any_job(taken):
    config = configuration(taken)
    config["models"]["m"]["organism"]["d_model"] = 2 * WIDTH
    with pytest.raises(ConfigurationError, match=f"of {WIDTH} dimensions, and resid .* has 16"):
        Grid(config)
    config = configuration(taken)
    config["models"]["m"]["organism"]["n_layers"] = 3
    with pytest.raises(ConfigurationError, match="for layer 2 by the name 'layer_2', got none"):
        Grid(config)
    config["cells"][0]["layers"] = [0, 1]  # those that are there
    Grid(config)
    config["autoencoders"]["scope"]["source"]["files"] = "layer_0"
    with pytest.raises(ConfigurationError, match=r"expected \{layer\}"):
        Grid(config)
    with pytest.raises(ConfigurationError, match="needs `architecture: pretrained`"):
        Grid(configuration(taken, architecture=None))
    source = {"hub": "a/b", "format": "saelens", "files": "layer_{layer}"}
    with pytest.raises(ConfigurationError, match="'revision' is a dependency of 'hub'"):
        Grid(configuration(taken, source=source))


@pytest.mark.parametrize("lowest", [True, [1]])
def test_the_least_changed_layers_need_dictionaries_of_their_own(lowest, taken):
    """One file for a pinned layer would be taken for another layer's."""
    config = configuration(taken)
    config["autoencoders"]["scope"]["source"]["files"] = "layer_0"
    config["cells"][0] |= {"autoencoders": ["scope", "tied"], "layers": [0]}
    Grid(config)
    config["cells"][0]["lowest_layers"] = lowest
    with pytest.raises(ConfigurationError, match=r"expected \{layer\} in the place"):
        Grid(config)
    config["cells"][0]["autoencoders"] = ["tied", "scope"]  # which has none of these layers
    Grid(config)


def test_dictionaries_from_elsewhere_have_no_null_and_serve_single_models_alone(taken):
    """One for base and policy has no other seed, and what reads both at once is no transfer."""
    config = configuration(taken)
    config["autoencoders"] |= {
        "scope_base": config["autoencoders"]["scope"] | {"reads": "base"},
        "cross": {"reads": "pair"}, "shift": {"reads": "difference"}, "either": {"reads": "pooled"},
    }  # fmt: skip
    config["cells"][0]["autoencoders"] = [*config["autoencoders"]]
    grid = Grid(config)
    assert grid.compared_variants(grid.cells[0]) == ["cross", "shift"]
    folder = "results/m/vader/seed0/sae"
    assert Plan(grid).transfer_files() == [
        f"{folder}/{sae}/transfer.parquet" for sae in ("tied", "scope", "scope_base", "either")
    ]


# ----------------------------------------------------------------------------------------- the jobs


def published(folder) -> dict[str, np.ndarray]:
    """A repository in the layout of Gemma Scope, with a pickle beside what is needed."""
    place = folder / "layer_1" / "width_16k"
    place.mkdir(parents=True)
    shapes = {"W_enc": (WIDTH, LATENTS), "W_dec": (LATENTS, WIDTH), "b_enc": (LATENTS,)}
    shapes |= {"b_dec": (WIDTH,), "threshold": (LATENTS,)}
    rng = np.random.default_rng(0)
    weights = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    np.savez(place / "params.npz", **weights)
    (place / "evil.pt").write_bytes(b"\x80\x04")
    return weights


def test_a_dictionary_of_the_hub_is_fetched_alone_and_taken_into_a_cell(tmp_path):
    """Only its own file comes, and the layer's artefact is what its formula says."""
    weights = published(tmp_path / "repository")
    hub = Hub({("models", "org/scope"): tmp_path / "repository"})
    source = {"hub": "org/scope", "revision": COMMIT, "format": "gemma_scope"}
    place = {"files": "layer_{layer}/width_16k", "layer": 1, "site": "resid", "width": WIDTH}
    offline = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    outputs = {"dictionary": "results/dictionaries/scope/layer1"}
    result = run_job("fetch_dictionary", source | place, {}, outputs, tmp_path, **offline)
    assert result.returncode == 0, result.stderr
    assert [name for name, _ in hub.sent] == ["params.npz"]
    wrong = run_job("fetch_dictionary", source | place | {"width": 9}, {}, outputs, tmp_path,
                    **offline)  # fmt: skip
    assert wrong.returncode == 1 and f"{WIDTH} dimensions, and resid of the model has 9" in (
        wrong.stderr
    )
    hub.close()
    x = np.random.default_rng(1).random((64, WIDTH), np.float32)
    artefacts.write_tensors(
        tmp_path / "activations" / "layer1.safetensors", {"activations": x.astype(np.float16)}, {},
        {"hook_name": "gpt_neox.layers.1", "hook_side": "output"},
    )  # fmt: skip
    record = outliers.described(x, 6.0, {})
    artefacts.write_json(tmp_path / "activations" / outliers.RECORD, {"layers": {"1": record}}, {})
    settings = Autoencoder(architecture="pretrained", site="resid").as_json()
    result = run_job(
        "autoencoders", settings | {"model": "m", "layer": 1, "seed": 0},
        {"activations": "activations", "dictionary": [outputs["dictionary"]], "base": []},
        {"layer": "results/layer1"}, tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    [sae] = store.load_sizes([tmp_path / "results" / "layer1"])[1]
    about = store.described(sae)
    assert about["size"] == LATENTS // WIDTH and about["architecture"] == "jumprelu"
    assert about["origin"] == f"org/scope at {COMMIT}: params.npz" and about["flat"] is None
    assert (sae.site, sae.layer, about["tied"]) == ("resid", 1, False)
    assert sae.largest_norm == pytest.approx(record["largest_norm"])
    pre = x @ weights["W_enc"] + weights["b_enc"]
    expected = pre * (pre > weights["threshold"]) @ weights["W_dec"] + weights["b_dec"]
    np.testing.assert_allclose(sae.decode(sae.encode(torch.from_numpy(x))), expected, rtol=1e-4)
    assert store.curves({1: tmp_path / "results" / "layer1"}).empty


def test_a_dictionary_of_another_width_is_refused_where_nothing_said_it_before():
    sae = random_autoencoder("topk", WIDTH)
    sae.metadata = {"origin": "org/scope"}
    with pytest.raises(ValueError, match=f"org/scope reads {WIDTH} dimensions, and the site has 9"):
        Trained.elsewhere(sae, 9)


def test_a_single_dictionary_has_no_matches_and_health_is_judged_without_them():
    sae = random_autoencoder("topk", WIDTH)
    matches, measured = agreement([sae], None)
    assert matches["small"].tolist() == list(range(sae.d_sae))
    assert (matches["large"] == -1).all() and matches["cosine"].isna().all()
    assert set(measured.values()) == {None}
    row = measured | {"l0": 3.0, "d_sae": 16, "fvu": 0.1, "dead_fraction": 0.0, "tokens": 9}
    row |= {"loss_recovered": 1.0, "flat": None}
    assert "mmcs_ratio" not in _limits(row, TableSettings())
    assert _quantities(row)["mmcs_ratio"] is None
    assert _why("mmcs_ratio", row) == "the layer has one dictionary"


def test_a_latent_beyond_the_other_size_has_no_match():
    """Sizes that come out may have more latents in the smaller one."""
    small, large = random_autoencoder("itda", WIDTH), random_autoencoder("itda", WIDTH)
    large.keep_first(10)
    matches, measured = agreement([small, large], None)
    assert sorted(matches["small"]) == list(range(16))
    assert (matches["large"] == -1).sum() == 6 and matches["cosine"][:10].notna().all()
    assert measured["mmcs"] == pytest.approx(matches["cosine"].mean())
