"""SAELens and delphi open what the workflow writes, and K-Steering steers as it does: run by `make
test-interop` in an environment of their own.

The folder with the artefacts is the environment variable LFP_ARTEFACTS (tests/interop/artefacts.py
writes it): autoencoders of every architecture, each on every site.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

FOLDER = Path(os.environ["LFP_ARTEFACTS"])
INDEX = json.loads((FOLDER / "index.json").read_text())
SITES = sorted({entry["site"] for entry in INDEX})
EVERY = pytest.mark.parametrize("entry", INDEX, ids=lambda e: f"{e['site']}-{e['name']}")
#: Those that SAELens opens: a pursuit without an encoder is none of its architectures.
OPENED = pytest.mark.parametrize(
    "entry",
    [entry for entry in INDEX if entry["opened"] != "itda"],
    ids=lambda e: f"{e['site']}-{e['name']}",
)


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


def test_every_architecture_stands_for_every_site():
    names = {site: [e["name"] for e in INDEX if e["site"] == site] for site in SITES}
    assert SITES == ["attn", "heads", "mlp", "resid"]
    assert len(set(map(tuple, names.values()))) == 1
    assert {e["opened"] for e in INDEX} == {"standard", "topk", "jumprelu", "gated", "itda"}


@OPENED
def test_saelens_loads_the_autoencoders_and_computes_the_same(expected, entry):
    from sae_lens import SAE

    site, name = entry["site"], entry["name"]
    sae = SAE.load_from_disk(str(FOLDER / site / name))
    code = sae.encode(torch.from_numpy(expected[f"{site}.x"]))
    np.testing.assert_allclose(code.detach().numpy(), expected[f"{site}.{name}.code"], atol=1e-6)
    np.testing.assert_allclose(
        sae.decode(code).detach().numpy(), expected[f"{site}.{name}.output"], atol=1e-6
    )
    assert (code > 0).any() and not (code > 0).all()
    assert sae.cfg.architecture() == entry["opened"]
    assert sae.cfg.metadata.hook_name == entry["hook_name"]
    assert sae.cfg.metadata.layer == 1 and sae.cfg.metadata.site == site


@pytest.mark.parametrize("site", SITES)
def test_saelens_refuses_what_it_has_no_architecture_for(site):
    from sae_lens import SAE

    with pytest.raises((ValueError, KeyError), match="itda"):
        SAE.load_from_disk(str(FOLDER / site / "itda"))


@pytest.mark.parametrize(("name", "k"), [("topk", 4), ("tied-topk", 4), ("all-topk", 24)])
@pytest.mark.parametrize("site", SITES)
def test_saelens_keeps_as_many_latents_as_the_configuration_says(expected, site, name, k):
    from sae_lens import SAE

    sae = SAE.load_from_disk(str(FOLDER / site / name))
    assert sae.cfg.k == k
    assert sae.cfg.rescale_acts_by_decoder_norm is False
    active = (sae.encode(torch.from_numpy(expected[f"{site}.x"])) > 0).sum(1)
    assert 1 <= active.max() <= k


def released_steering(expected):
    """The released K-Steering with a network of the size of ours."""
    from k_steering.steering.config import TrainerConfig
    from k_steering.steering.trainer import ActivationSteeringTrainer

    torch.manual_seed(0)
    width = expected["k.x"].shape[1]
    return ActivationSteeringTrainer(TrainerConfig(input_dim=width, num_labels=2, hidden_dim=128))


def directions(steering, x, towards, away):
    """What the released K-Steering adds to every token, of root mean square 1."""
    added = steering.steer_activations(x, towards, away, alpha=1.0).numpy() - x
    return added / np.sqrt((added**2).mean(1, keepdims=True))


@pytest.mark.parametrize(("name", "towards", "away"), [("both", [0, 1], []), ("apart", [0], [1])])
def test_k_steering_adds_the_same_gradient_of_the_same_classifier(expected, name, towards, away):
    steering = released_steering(expected)
    names = steering.classifier.state_dict()
    steering.classifier.load_state_dict({k: torch.from_numpy(expected[f"k.{k}"]) for k in names})
    # In batches of one, for the package divides the gradient by the number of tokens.
    for row in range(20):
        x = expected["k.x"][row : row + 1]
        np.testing.assert_allclose(
            directions(steering, x, towards, away)[0], expected[f"k.{name}"][row], atol=1e-3
        )


def test_k_steering_learns_the_same_directions_from_the_same_tokens(expected):
    steering = released_steering(expected)
    steering.fit(expected["k.x"], expected["k.labels"], epochs=30, batch_size=256)
    theirs = directions(steering, expected["k.x"], [0, 1], []).mean(0)
    ours = expected["k.both"].mean(0)
    assert theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours) > 0.95


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER / "model")


@EVERY
def test_delphi_reads_the_cache_and_finds_the_same_activations(expected, entry, tokenizer):
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentDataset

    site, name = entry["site"], entry["name"]
    dataset = LatentDataset(
        FOLDER / site / name / "delphi" / "latents",
        SamplerConfig(),
        ConstructorConfig(),
        tokenizer,
        modules=[entry["hook_name"]],
    )
    [buffer] = dataset.buffers
    np.testing.assert_array_equal(buffer.tokens.numpy(), expected["windows"])
    locations, activations, _ = buffer.load()
    codes = expected[f"{site}.{name}.cached"]
    rebuilt = np.zeros_like(codes)
    rebuilt[tuple(locations.numpy().T)] = np.asarray(activations, dtype=np.float32)
    np.testing.assert_allclose(rebuilt, codes, atol=1e-3, rtol=1e-3)
    assert (codes > 0).sum() == len(locations) > 0
    assert dataset.cache_config["cache_ctx_len"] == expected["windows"].shape[1]
    assert dataset.cache_config["hook_side"] == entry["hook_side"]


@EVERY
def test_neuronpedias_rows_have_their_fields(entry):
    text = (FOLDER / entry["site"] / entry["name"] / "explanations.jsonl").read_text()
    [row] = [json.loads(line) for line in text.splitlines()]
    assert set(row) == {
        "id", "modelId", "layer", "index", "description", "authorId", "typeName",
        "explanationModelName", "notes"
    }  # fmt: skip
    assert (row["index"], row["layer"], row["description"]) == (
        "0",
        f"1-vader-seed0-{entry['name']}",
        'the word "fine"',
    )
    assert json.loads(row["notes"])["related"] is True
