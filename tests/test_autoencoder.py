"""Autoencoders: identities, the loss against the paper's equation, recovery of planted features,
the disk format.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lfp.sae import matching, store
from lfp.sae.architectures.standard import Standard
from lfp.sae.metrics import Reconstruction, cross_entropy, evaluate
from lfp.sae.training import gradients, kernels, loop, optimizer, trainer
from lfp.sae.training.gradients import Gradients
from lfp.settings import Autoencoder


def identity_autoencoder(d: int) -> Standard:
    """Features +e_i and -e_i: reconstructs anything."""
    sae = Standard(d, 2 * d, tied=False)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.encoder.copy_(sae.decoder.T)
    return sae


def reconstruction_metrics(sae: Standard, x: np.ndarray, parts: int = 1) -> dict[str, float]:
    """The metrics of `x` [token, d_in], shown in `parts`."""
    found = Reconstruction(sae)
    for part in np.array_split(x, parts):
        found.add(torch.from_numpy(part))
    return found.metrics()


def planted(
    n: int = 4000, d: int = 12, features: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sparse non-negative combinations of random unit directions: (activations, directions)."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0][:features]
    code = rng.random((n, features)) * (rng.random((n, features)) < 0.15)
    return (code @ directions).astype(np.float32), directions


def test_an_identity_autoencoder_reconstructs():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    metrics = reconstruction_metrics(identity_autoencoder(6), x)
    assert metrics["fvu"] == pytest.approx(0, abs=1e-9)
    assert metrics["l0"] == 6
    assert metrics["dead_fraction"] == 0


def test_metrics_do_not_depend_on_how_the_tokens_come():
    x = np.random.default_rng(0).normal(100, 1, size=(500, 6)).astype(np.float32)
    sae = Standard(6, 9)
    whole, parts = reconstruction_metrics(sae, x), reconstruction_metrics(sae, x, parts=7)
    assert parts == pytest.approx(whole, rel=1e-6)
    error = (
        (torch.from_numpy(x) - sae.decode(sae.encode(torch.from_numpy(x))))
        .detach()
        .double()
        .numpy()
    )
    assert whole["fvu"] == pytest.approx(
        (error**2).sum() / ((x - x.astype(np.float64).mean(0)) ** 2).sum(), rel=1e-6
    )


def test_an_autoencoder_that_says_the_mean_explains_nothing():
    x = np.random.default_rng(0).normal(2, 1, size=(500, 6)).astype(np.float32)
    sae = Standard(6, 6)
    with torch.no_grad():
        sae.b_enc.fill_(-100)
        sae.b_dec.copy_(torch.from_numpy(x.mean(0)))
    metrics = reconstruction_metrics(sae, x)
    assert metrics["fvu"] == pytest.approx(1, abs=1e-5)
    assert (metrics["l0"], metrics["dead_fraction"]) == (0, 1)


def test_the_squared_error_is_a_mean_over_tokens_and_dimensions():
    torch.manual_seed(0)
    x, sae = torch.randn(50, 6), Standard(6, 4)
    reconstruction = Reconstruction(sae)
    reconstruction.add(x)
    expected = F.mse_loss(sae.reconstruct(x), x).item()
    assert reconstruction.metrics()["mse"] == pytest.approx(expected)


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_mean_squared_error_plus_the_l1_norm(tied):
    torch.manual_seed(0)
    sae, x = Standard(5, 7, tied), torch.randn(11, 5)
    code = torch.relu(x @ sae.W_enc + sae.b_enc)
    expected = ((code @ sae.W_dec + sae.b_dec - x) ** 2).mean() + 0.3 * code.abs().sum(1).mean()
    torch.testing.assert_close(sae.loss(x, Autoencoder(), torch.tensor(0.3))[0], expected)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(7))
    if tied:
        assert torch.equal(sae.W_enc, sae.W_dec.T)


@pytest.mark.parametrize("tied", [True, False])
def test_training_recovers_planted_directions(tied):
    x, directions = planted()
    settings = Autoencoder(l0=1.5, learning_rate=1e-2, batch_size=500, epochs=60, tied=tied)
    sae = loop.train(x, [12], settings, seed=0).autoencoders[0]
    cosine = np.abs(directions @ sae.W_dec.detach().numpy().T).max(1)
    assert cosine.mean() > 0.98
    untrained = Standard(12, 12)
    assert np.abs(directions @ untrained.W_dec.detach().numpy().T).max(1).mean() < 0.75
    assert reconstruction_metrics(sae, x)["fvu"] < 0.1


def test_training_is_deterministic_and_more_l1_is_sparser():
    x, _ = planted(1000)
    settings = Autoencoder(l1=0.001, batch_size=200, epochs=5)
    a, b = (loop.train(x, [12], settings, seed=1).autoencoders[0] for _ in range(2))
    assert torch.equal(a.decoder, b.decoder)
    settings = replace(settings, l1=0.05)
    sparse = loop.train(x, [12], settings, seed=1).autoencoders[0]
    assert reconstruction_metrics(sparse, x)["l0"] < reconstruction_metrics(a, x)["l0"]


def penalty(value: float) -> torch.Tensor:
    """The weight of the L1 norm, as training hands it over."""
    return torch.tensor(value, dtype=torch.float64)


def autograd(sae: Standard, x: torch.Tensor, l1: float) -> dict[str, torch.Tensor]:
    """Gradients by automatic differentiation of the loss: the plain version."""
    sae.zero_grad()
    sae.loss(x, Autoencoder(), penalty(l1))[0].backward()
    return {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}


def random_autoencoder(d: int, m: int, tied: bool, density: float) -> Standard:
    """Rows of all norms, biases that leave about `density` of the features active on
    normal noise.
    """
    sae = Standard(d, m, tied).double()
    with torch.no_grad():
        sae.decoder.mul_(torch.rand(m, 1) * 3 + 0.1)
        sae.b_dec.normal_()
        sae.b_enc.fill_(
            {0.0: -1e3, 1.0: 1e3}.get(density) or torch.special.ndtri(torch.tensor(density)).item()
        )
        if not tied:
            sae.encoder.normal_().div_(sae.encoder.norm(dim=0))
    return sae


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 5, 4), (64, 8, 16), (130, 33, 65)])
def test_closed_form_gradients_are_those_of_automatic_differentiation(shape, density, tied):
    """Random shapes, no feature active to all; one thread and several, which then share the tokens
    unevenly.
    """
    torch.manual_seed(0)
    n, d, m = shape
    sae, x = random_autoencoder(d, m, tied, density), torch.randn(n, d, dtype=torch.float64)
    expected = autograd(sae, x, 0.3)
    for threads in (1, 3):
        written = Gradients(sae, penalty(0.3), torch.float64, threads)
        for path in (written.dense, written.sparse, written.dense):  # buffers are used again
            sae.zero_grad()
            path(x)
            for name, parameter in sae.named_parameters():
                torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3])
def test_the_sparse_path_in_several_blocks_and_tiles_is_the_dense_one(density, tied):
    """Wide enough for a second block of columns, of six, and long enough for a second tile, of six
    tokens.
    """
    torch.manual_seed(0)
    n, d, m = 1030, 70, 4200
    columns = kernels.BLOCK // m // 64 * 64
    assert (columns, kernels.TILE // columns) == (64, 1024)
    sae, x = random_autoencoder(d, m, tied, density), torch.randn(n, d, dtype=torch.float64)
    written, found = Gradients(sae, penalty(0.3), torch.float64), []
    for path in (written.dense, written.sparse):
        path(x)
        found.append({name: parameter.grad.clone() for name, parameter in sae.named_parameters()})
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_the_optimizer_is_torchs_adam():
    torch.manual_seed(0)
    sae = random_autoencoder(4, 6, True, 0.5)
    sae.requires_grad_(False)
    other = Standard(4, 6).double()
    other.load_state_dict(sae.state_dict())
    ours, theirs = (
        optimizer.Adam(sae.parameters(), 1e-2),
        torch.optim.Adam(other.parameters(), lr=1e-2),
    )
    for _ in range(5):
        for mine, yours in zip(sae.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            yours.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(
        dict(sae.named_parameters()), {n: p.data for n, p in other.named_parameters()}
    )


def test_a_smaller_batch_after_a_larger_one_reads_nothing_of_it():
    torch.manual_seed(0)
    sae, x = random_autoencoder(6, 9, True, 0.3), torch.randn(50, 6, dtype=torch.float64)
    written = Gradients(sae, penalty(0.1), torch.float64)
    for path in (written.dense, written.sparse):
        path(x)
        path(x[:7])
        kept = {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}
        torch.testing.assert_close(kept, autograd(sae, x[:7], 0.1))


def test_products_in_bfloat16_are_the_same_gradients_to_its_precision():
    torch.manual_seed(0)
    sae, x = random_autoencoder(32, 64, True, 0.3).float(), torch.randn(256, 32)
    expected = autograd(sae, x, 0.01)
    Gradients(sae, torch.tensor(0.01), torch.bfloat16).dense(x)
    for name, parameter in sae.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - expected[name]).norm() < 0.03 * expected[name].norm()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_the_sparse_path_trains_what_the_dense_path_trains(kind, monkeypatch):
    x, _ = planted(1000)
    settings = Autoencoder(l1=0.01, batch_size=300, epochs=20, learning_rate=5e-3)
    monkeypatch.setattr(gradients, "KERNELS_PAY", 0)
    found = {}
    for pays in (False, True):
        monkeypatch.setattr(gradients, "sparse_pays", lambda density, weights, pays=pays: pays)
        found[pays] = loop.train(x.astype(kind), [12, 24], settings, seed=0).autoencoders
    for dense, sparse in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(dense.W_dec, sparse.W_dec, atol=1e-3, rtol=0)
        metrics = [reconstruction_metrics(sae, x) for sae in (dense, sparse)]
        assert metrics[0]["fvu"] == pytest.approx(metrics[1]["fvu"], abs=1e-4)
    assert [sae.d_sae for sae in found[True]] == [12, 24, 12]


class PretendGraph:
    """What a GPU's graph does, on a CPU: keep every operation with the memory it touched, and do it
    all once more.
    """

    def __init__(self) -> None:
        self.operations: list[tuple] = []
        self.replays = 0

    @torch.no_grad()  # the operations of a gradient are among those that were recorded
    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return  # a GPU computes nothing while it records; here that was computed
        for function, args, kwargs, kept in self.operations:
            for old, new in zip(kept, tree_leaves(function(*args, **kwargs)), strict=True):
                if old is not None:
                    old.copy_(new)


class PretendRecording(TorchDispatchMode):
    """Operations go into the graph; one that waits for a value fails, as it does on a GPU."""

    def __init__(self, graph: PretendGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, (
            "a recorded step waits for the device"
        )
        found = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, tree_leaves(found)))
        return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_trains_what_a_computed_one_trains(tied, precision, monkeypatch):
    """Batches of 300, and of 100 at the end of an epoch; on a GPU, where there is one, with its own
    graphs.
    """
    x, _ = planted(1000)
    settings = Autoencoder(
        l1=0.01, batch_size=300, epochs=5, learning_rate=5e-3, tied=tied, precision=precision
    )
    device, graphs = ("cuda" if torch.cuda.is_available() else "cpu"), []
    if device == "cpu":
        monkeypatch.setattr(
            torch.cuda, "CUDAGraph", lambda: graphs.append(PretendGraph()) or graphs[-1]
        )
        monkeypatch.setattr(torch.cuda, "graph", PretendRecording)
    found = {}
    for records in (True, False):
        monkeypatch.setattr(trainer, "can_capture", lambda device, records=records: records)
        found[records] = loop.train(x, [12, 24], settings, seed=0, device=device).autoencoders
    for recorded, computed in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(
            dict(recorded.named_parameters()), dict(computed.named_parameters())
        )
    if device == "cpu":
        full_batches = 15
        assert [graph.replays for graph in graphs] == 3 * [full_batches - optimizer.WARM_UP]


@pytest.mark.parametrize("tied", [True, False])
def test_the_directory_is_what_saelens_loads(tied, tmp_path):
    torch.manual_seed(0)
    sae = Standard(4, 6, tied)
    with torch.no_grad():
        sae.b_dec.uniform_()
    store.save(sae, tmp_path, {"layer": 3})
    weights = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "W_enc": (4, 6), "W_dec": (6, 4), "b_enc": (6,), "b_dec": (4,)
    }  # fmt: skip
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "standard"
    assert config["apply_b_dec_to_input"] is False
    assert config["metadata"]["layer"] == 3
    x = torch.randn(9, 4)
    again = store.load(tmp_path)
    torch.testing.assert_close(again.encode(x), sae.encode(x))
    torch.testing.assert_close(again.decode(again.encode(x)), sae.decode(sae.encode(x)))


def test_matching_finds_a_permutation_and_random_dictionaries_match_badly():
    rng = np.random.default_rng(0)
    small = rng.normal(size=(20, 16))
    large = np.concatenate([small[rng.permutation(20)] * 3, rng.normal(size=(20, 16))])
    matches = matching.match_features(small, large)
    assert matching.mean_max_cosine(matches) == pytest.approx(1)
    assert sorted(matches["small"]) == list(range(20))
    assert matches["large"].is_unique
    unrelated = matching.match_features(small, rng.normal(size=(40, 16)))
    assert matching.mean_max_cosine(unrelated) < 0.8
    assert unrelated["cosine"].is_monotonic_decreasing


def test_an_identity_autoencoder_recovers_all_of_the_loss(neox, tokenizer, reviews):
    sequences = tokenizer(reviews[:6])["input_ids"]
    clean = cross_entropy(neox, sequences, tokenizer.pad_token_id, 3, {})
    found = evaluate(neox, {1: [identity_autoencoder(16)]}, sequences, tokenizer.pad_token_id, 3)
    [metrics] = found[1]
    assert metrics["ce_clean"] == pytest.approx(clean)
    assert metrics["ce_reconstructed"] == pytest.approx(clean, abs=1e-5)
    assert metrics["loss_recovered"] == pytest.approx(1, abs=1e-2)
