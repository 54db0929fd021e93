"""Training of dictionaries: the same code on any scale, a target of sparsity that is met, an end
where nothing is gained, dead latents that begin anew, prompts that are read once; and their health.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lfp.files import artefacts
from lfp.models.hooks import site_activations
from lfp.reporting import unestimated
from lfp.sae import store
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.architectures.standard import Standard
from lfp.sae.harvest import harvest, harvested_tokens
from lfp.sae.matching import agreement
from lfp.sae.metrics import Reconstruction
from lfp.sae.reading import left_out, read_before
from lfp.sae.training.loop import train
from lfp.sae.training.schedule import Schedule
from lfp.sae.training.trainer import Trainer
from lfp.settings import Autoencoder
from lfp.tables import rendering
from lfp.tables.health.autoencoders import COLUMN, HEALTHY, judged, reasons, sae_health
from lfp.tables.rows import TableSettings
from lfp.texts.corpora import documents
from tests.test_autoencoder import planted

SETTINGS = Autoencoder(l0=2.0, learning_rate=1e-2, batch_size=250, epochs=40, other_seed=False)
TABLES = TableSettings(resamples=200, matched_draws=19)


@pytest.fixture(scope="module")
def activations():
    return planted(2000)[0]


@pytest.fixture(scope="module")
def plain(activations):
    return train(activations, [12, 24], SETTINGS, seed=0)


def metrics_of(sae, x: np.ndarray) -> dict[str, float]:
    reading = Reconstruction(sae)
    reading.add(torch.from_numpy(x))
    return reading.metrics()


@pytest.mark.parametrize(("factor", "offset"), [(0.1, 0.0), (10.0, 0.0), (1.0, 5.0), (7.0, -3.0)])
def test_scale_and_mean_of_the_activations_change_no_code(activations, plain, factor, offset):
    moved = (factor * activations + offset).astype(np.float32)
    trained = train(moved, [12, 24], SETTINGS, seed=0)
    for before, after in zip(plain.autoencoders, trained.autoencoders, strict=True):
        code = before.encode(torch.from_numpy(activations))
        torch.testing.assert_close(
            after.encode(torch.from_numpy(moved)) / factor, code, atol=0.02, rtol=0.05
        )
        fvu = metrics_of(before, activations)["fvu"]
        assert metrics_of(after, moved)["fvu"] == pytest.approx(fvu, rel=0.05)
    assert trained.l1 == pytest.approx(plain.l1, rel=0.02)


def test_without_a_scale_one_penalty_means_another_thing_in_another_layer(activations):
    settings = replace(SETTINGS, normalise=False, l1=0.01)
    small, large = (
        metrics_of(train(x, [12], settings, seed=0).autoencoders[0], x)["l0"]
        for x in (0.1 * activations, 10 * activations)
    )
    assert large > 2 * small


@pytest.mark.parametrize("target", [2.0, 4.0])
@pytest.mark.parametrize("tied", [True, False])
def test_the_penalty_is_found_that_gives_the_wanted_sparsity(target, tied):
    x = np.random.default_rng(0).normal(size=(3000, 12)).astype(np.float32)
    settings = replace(SETTINGS, l0=target, tied=tied, epochs=120)
    trained = train(x, [12, 24], settings, seed=0)
    for sae, l1 in zip(trained.autoencoders, trained.l1, strict=True):
        assert metrics_of(sae, x)["l0"] == pytest.approx(target, rel=0.15)
        assert l1 > 0
    # A penalty that is given stays.
    assert train(x, [12], replace(settings, l1=0.3), seed=0).l1 == [pytest.approx(0.3)]


def test_the_curve_has_every_look_and_the_penalty_of_its_end(plain):
    curve = pd.DataFrame(plain.curve)
    assert set(curve["autoencoder"]) == {"12 latents", "24 latents"}
    assert curve["step"].max() == plain.steps
    last = curve[curve["step"] == plain.steps]
    assert last["l1"].to_list() == pytest.approx(plain.l1)
    assert (last["fvu"] < curve.groupby("autoencoder")["fvu"].first().to_numpy()).all()


@pytest.mark.parametrize(
    "kind", sorted(name for name, k in ARCHITECTURES.items() if k.by_gradients)
)
@pytest.mark.parametrize("tokens", [0, 10**9], ids=["autograd", "kernels"])
def test_a_look_at_a_large_batch_sees_what_one_at_all_of_it_would(kind, tokens):
    torch.manual_seed(0)
    settings = replace(SETTINGS, architecture=kind, k=3, tied=False)
    sae = ARCHITECTURES[kind].of_settings(12, 24, settings)
    trainer = Trainer(sae, "large batch", settings, tokens, "cpu", 1)
    densities: list[float] = []
    trainer.gradients.look = lambda density: densities.append(density.item())
    x = torch.randn(1300, 12, generator=torch.Generator().manual_seed(0))
    x[:600] *= 100  # whose latents are the largest of the batch, so that no part stands for all
    active = sae.encode(x) > 0
    trainer._look(x, 0.0, 1.0)
    assert densities == [pytest.approx(active.float().mean().item(), rel=1e-6)]
    assert torch.equal(trainer.alive, active.any(0))


def test_another_seed_is_trained_beside_and_kept_beside(activations, tmp_path):
    trained = train(activations, [12, 24], replace(SETTINGS, other_seed=True, epochs=2), seed=0)
    assert [sae.d_sae for sae in trained.autoencoders] == [12, 24, 12]
    store.save_layer(tmp_path, (1, 2), trained.autoencoders, trained.l1, {})
    assert store.sizes(tmp_path) == [1, 2]
    other = store.load_other_seed(tmp_path)
    torch.testing.assert_close(other.W_dec, trained.autoencoders[2].W_dec)
    assert not torch.allclose(other.W_dec, trained.autoencoders[0].W_dec, atol=0.1)


def test_of_no_activation_nothing_is_trained_and_nothing_is_wrong():
    trained = train(np.zeros((0, 12), np.float16), [12, 24], SETTINGS, seed=0)
    assert (trained.curve, trained.flat, trained.steps) == ([], False, 0)
    assert all(torch.isfinite(p).all() for sae in trained.autoencoders for p in sae.parameters())
    one = train(np.ones((1, 12), np.float16), [12], SETTINGS, seed=0)
    assert metrics_of(one.autoencoders[0], np.ones((1, 12), np.float32))["mse"] < 0.1


def course(losses, settled=True, tolerance=0.1) -> Schedule:
    """A schedule of 1,000 steps that has looked at `losses` every 50 steps."""
    settings = replace(SETTINGS, patience=3, tolerance=tolerance, warm_up_steps=20, cool_down=0.25)
    schedule = Schedule(settings, 1000)
    for i, loss in enumerate(losses, 1):
        schedule.note(50 * i, [loss, 1.0], settled)
    return schedule


def test_training_ends_where_the_held_out_loss_is_flat():
    falling = [0.8**i for i in range(12)]
    assert not course(falling).flat and course(falling).steps == 1000
    # Eight looks that gain a fifth each, and four that gain nothing: the third of these is the
    # first whose window of three has none of the gain.
    flat = course(falling[:8] + 4 * [falling[7]])
    assert flat.flat and flat.cooling_from == 550
    assert flat.steps == round(550 / 0.75 + 0.5)
    assert not course(falling[:8] + 4 * [falling[7]], settled=False).flat
    assert not course(20 * [1.0], tolerance=None).flat


def test_the_learning_rate_warms_up_stays_and_cools_down():
    schedule = course([])
    rates = [schedule.learning_rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(SETTINGS.learning_rate / 21)
    assert max(rates) == rates[21] == rates[749] == SETTINGS.learning_rate
    assert rates[999] == pytest.approx(SETTINGS.learning_rate / 250)
    assert np.all(np.diff(rates[750:]) < 0)
    # A training of a few steps warms up in a tenth of them.
    assert Schedule(SETTINGS, 20).warm_up == 2


def test_a_dead_latent_begins_anew_where_the_error_is():
    torch.manual_seed(0)
    x = torch.from_numpy(planted(800)[0])
    sae = Standard(12, 12)
    with torch.no_grad():
        sae.b_enc[:3] = -100.0  # active on nothing
    trainer = Trainer(sae, "12 latents", replace(SETTINGS, l1=0.01), 1000, "cpu", 1)
    for number in range(6):
        trainer.step(x, number, 1e-3, 1.0)
    kept = sae.W_dec[3:].clone()
    assert trainer.measured(x)["dead"] == pytest.approx(3 / 12)
    assert trainer.resample(x, np.random.default_rng(0)) == 3
    share = (sae.encode(x)[:, :3] > 0).float().mean(0)
    assert ((share > 0) & (share < 0.6)).all()
    assert torch.equal(sae.W_dec[3:], kept)
    for moments in (trainer.optimizer.means, trainer.optimizer.squares):
        assert all((m[:3] == 0).all() for m in moments if len(m) == 12 and m.ndim == 2)
    assert trainer.measured(x)["dead"] == 0


def restarted(architecture: str, tied: bool, batch: int) -> tuple[torch.Tensor, Trainer]:
    """Latents of which 8 of 24 are dead and begin anew on a batch: their latents, the trainer."""
    torch.manual_seed(0)
    x = torch.from_numpy(planted(800)[0])[:batch]
    x += 0.05 * torch.randn_like(x)  # no two tokens of one feature alone have errors that are alike
    settings = replace(SETTINGS, architecture=architecture, k=3, l1=0.01, tied=tied)
    sae = ARCHITECTURES[architecture].of_settings(12, 24, settings)
    with torch.no_grad():
        sae.b_enc[:8] = -100.0
    trainer = Trainer(sae, "24 latents", settings, 1000, "cpu", 1)
    trainer.step(x, 0, 1e-3, 1.0)
    trainer.resample(x, np.random.default_rng(0))
    return sae.encode(x)[:, :8], trainer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "architecture", [name for name in ARCHITECTURES if ARCHITECTURES[name].by_gradients]
)
def test_no_two_latents_begin_anew_alike(architecture, tied):
    """Two latents of one token have the same gradients for ever."""
    _, trainer = restarted(architecture, tied, 200)
    directions = trainer.sae.W_dec[:8]
    cosine = (directions @ directions.T).fill_diagonal_(0)
    assert cosine.max() < 0.9999


@pytest.mark.parametrize("batch", [3, 20, 500])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_a_latent_that_begins_anew_is_active_somewhere(architecture, batch):
    latents, trainer = restarted(architecture, True, batch)
    began = trainer.sae.b_enc[:8] > -100
    assert began.sum() == min(8, batch)  # where tokens are fewer than dead latents, the rest waits
    assert (latents[:, began] > 0).any(0).all()


@pytest.mark.parametrize("check_steps", [1, 2])
def test_frequent_looks_restart_no_live_latent(activations, check_steps):
    """Latents are looked at every few steps; before that none is known to be dead."""
    settings = replace(SETTINGS, check_steps=check_steps, tolerance=None, epochs=20)
    trained = train(activations, [12], settings, seed=0)
    rare = train(activations, [12], replace(settings, resample=False), seed=0)
    fvu, plain = (metrics_of(t.autoencoders[0], activations)["fvu"] for t in (trained, rare))
    assert fvu < 1.2 * plain + 0.01


def test_a_penalty_of_whole_numbers_warms_up():
    trainer = Trainer(Standard(4, 4), "4 latents", replace(SETTINGS, l1=1), 100, "cpu", 1)
    trainer.step(torch.randn(8, 4), 0, 1, 0.25)
    assert trainer.penalty == 0.25 and trainer.optimizer.learning_rate == 1


def test_a_prompt_is_read_once_with_all_of_its_answers(neox):
    """Every distinct text so far is read once, and nothing else is."""
    prompts = [[5, 6, 7, 8], [5, 6, 9]]
    answers = [[[11, 12], [11, 13, 14], [15]], [[11, 12], [16, 17]]]
    sequences = [p + a for p, group in zip(prompts, answers, strict=True) for a in group]
    sequences.append(list(sequences[0]))  # a copy of a whole text
    fronts, counts = left_out(sequences, 0, prompts=True)
    positions = [
        tuple(ids[: i + 1])
        for ids, front in zip(sequences, fronts, strict=True)
        for i in range(front, len(ids))
    ]
    every = {tuple(ids[: i + 1]) for ids in sequences for i in range(len(ids))}
    assert len(positions) == len(set(positions)) and set(positions) == every
    assert counts == {"added": 0, "copies": sum(map(len, sequences)) - len(every)}
    array = np.zeros((harvested_tokens(sequences, fronts), 16), np.float32)
    harvest(neox, sequences, {1: array}, 1, 2, 0, fronts=fronts)
    [(_, mask, outputs)] = site_activations(neox, sequences, [1], 1, len(sequences))
    read = outputs[1][mask].numpy()
    distinct = np.unique(read.round(4), axis=0)
    np.testing.assert_allclose(np.unique(array.round(4), axis=0), distinct, atol=2e-4)
    # What was learned from is held out of what is measured.
    asked, _ = left_out([[5, 6, 7, 9], [4, 6]], 0, prompts=True, before=sequences)
    assert asked == [3, 0]
    # Other texts are read whole, but for what the tokenizer adds.
    assert left_out(sequences, 1, prompts=False)[0] == [1] * len(sequences)


def test_in_a_narrow_site_half_of_the_way_from_chance_is_healthy(tmp_path):
    """Where two random dictionaries have an MMCS of .61, none has twice as much."""
    path = str(tmp_path / "m" / "t" / "seed0" / "sae" / "a" / "metrics.json")
    for mmcs, healthy in ((0.82, True), (0.79, False)):
        row = metrics_row(mmcs=mmcs, mmcs_untrained=0.61, l0=30.0)
        seen = {"held_out": {"read": 0}, "triples": {"read": 0}}
        artefacts.write_json(path, {"autoencoders": [row], **seen}, {})
        assert (reasons([path], TABLES)["m", "t", 0, "a"] == HEALTHY) == healthy


def test_held_out_texts_that_autoencoders_have_read_are_counted():
    texts = pd.DataFrame({"text": ["the film", "a film", "the", " "]})
    pairs = pd.DataFrame({"prompt": ["why?", "how?"], "chosen": " a", "rejected": " b"})
    triples = pd.DataFrame(
        {
            "prompt": ["\n\nwho is\n it?", "when?"],
            "positive": " a",
            "neutral": " b",
            "negative": " c",
        }
    )
    asked = {"texts": texts, "pairs": pairs, "triples": triples}
    # A prompt is read with any answer behind it, also where a copy of it has other margins.
    read = ["the film was long", "the end", "why? other", "so", "who is it?  a"]
    assert read_before(asked, read) == {
        "texts": {"texts": 3, "read": 2}, "pairs": {"texts": 2, "read": 1},
        "triples": {"texts": 2, "read": 1},
    }  # fmt: skip
    assert read_before({"pairs": pairs}, documents(pairs)) == {"pairs": {"texts": 2, "read": 2}}


def test_agreement_of_directions_stands_beside_that_of_chance():
    torch.manual_seed(0)
    small, large = Standard(16, 16), Standard(16, 32)
    with torch.no_grad():
        large.decoder[8:24] = small.decoder[torch.randperm(16)]
    matches, measured = agreement([small, large], None)
    assert measured["mmcs"] == pytest.approx(1) and len(matches) == 16
    assert 0.2 < measured["mmcs_untrained"] < 0.8
    assert measured["mmcs_other_seed"] is None
    assert agreement([small, large], Standard(16, 16))[1]["mmcs_other_seed"] < 0.8


def metrics_row(**changes) -> dict:
    row = {
        "layer": 3, "d_sae": 576, "size": 1, "tokens": 900, "l0": 20.0, "fvu": 0.4,
        "dead_fraction": 0.1, "loss_recovered": 0.9, "mmcs": 0.6, "mmcs_untrained": 0.2,
        "mmcs_other_seed": None, "flat": True,
    }  # fmt: skip
    return row | changes


def test_a_degenerate_dictionary_is_named_in_every_row_that_depends_on_it(tmp_path):
    """Active on 56 % of the tokens, of directions that no second training finds: on a real model
    the first release said nothing.
    """
    paths = []
    for name, rows in {
        "good": [metrics_row()],
        "bad": [metrics_row(), metrics_row(layer=4, l0=322.0, mmcs=0.13)],
        "blank": [metrics_row(tokens=0, l0=None, fvu=None, dead_fraction=None)],
        "reader": [metrics_row()],
        "of_triples": [metrics_row()],
    }.items():
        paths.append(str(tmp_path / "m" / "t" / "seed0" / "sae" / name / "metrics.json"))
        seen = {"texts": 40, "read": 12 if name == "reader" else 0}
        triples = {"texts": 9, "read": 4} if name == "of_triples" else seen
        counts = {"held_out": seen, "triples": triples}
        artefacts.write_json(paths[-1], {"autoencoders": rows, **counts}, {})
    known = reasons(paths, TABLES)
    assert known["m", "t", 0, "good"] == HEALTHY
    assert known["m", "t", 0, "bad"] == (
        "layer 4, 576 latents: l0_share 0.559, at most 0.25;"
        " layer 4, 576 latents: mmcs_ratio 0.65, at least 2"
    )
    assert "l0_share none" in known["m", "t", 0, "blank"]
    assert known["m", "t", 0, "reader"].startswith("12 of 40 held-out texts were read by the auto")
    assert "triples" not in known["m", "t", 0, "reader"]  # they are of the same corpus
    assert known["m", "t", 0, "of_triples"].startswith("4 of 9 prompts of triples were read by")
    frame = sae_health(paths, TABLES).frame()
    failed = frame[frame["passes"].eq(False)]
    assert set(failed["sae"]) == {"bad", "blank"}
    assert set(failed.loc[failed["sae"] == "bad", "quantity"]) == {"l0_share", "mmcs_ratio"}
    assert frame.loc[frame["quantity"] == "flat", "passes"].isna().all()
    rows = pd.DataFrame({"model": "m", "task": "t", "seed": 0, "sae": ["good", "bad", "other"]})
    assert judged(rows, known)[COLUMN].to_list() == [HEALTHY, known["m", "t", 0, "bad"], ""]
    assert COLUMN not in judged(rows.drop(columns="sae"), known)
    # A reason of the row's own stands in front, and a healthy dictionary does not speak over it.
    few = judged(rows.assign(**{COLUMN: "few"}), known)[COLUMN].to_list()
    assert few == ["few", f"few; {known['m', 't', 0, 'bad']}", "few"]
    # What is read without an autoencoder has no health of one.
    read = rows.assign(sae="bad", features=["latents", "raw", "length"])
    assert judged(read, known)[COLUMN].to_list() == [known["m", "t", 0, "bad"], "", ""]
    rendering.write_formats(frame, {"csv": tmp_path / "sae_health.csv"}, "", {})
    said = unestimated.lines([tmp_path / "sae_health.csv"], since=0)
    assert "  sae_health, m/t/seed0/bad: l0_share 0.559, threshold 0.25 (1 row)" in said
    assert not any("good: " in line and "threshold" in line for line in said)
