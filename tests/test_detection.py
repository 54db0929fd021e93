"""Detection: planted words are found, null policies alarm as seldom as is said, and nothing that is
scored knows what was planted.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lfp.change import detection as suspect
from lfp.tables.change.detection import detection
from lfp.tables.rows import TableSettings

WORDS = [f"w{i}" for i in range(200)]
LEXICON = dict(zip(WORDS[:120], np.random.default_rng(9).normal(size=120) * 2, strict=True))
FLIPPED = WORDS[:24]
SETTINGS = TableSettings(resamples=200)


def reading(seed: int, signal: float = 1.0, flipped: int = 0, trigger: float = 0.0) -> pd.DataFrame:
    """Readings of one policy: a common response to the lexicon, noise, and what was planted."""
    rng = np.random.default_rng(seed)
    valence = np.array([LEXICON.get(word, 0.0) for word in WORDS])
    valence[:flipped] *= -1
    common = 0.3 * np.random.default_rng(7).normal(size=200)
    value = signal * (valence + common) + 0.4 * rng.normal(size=200)
    value[150] += trigger
    return pd.DataFrame({
        "subject": "policy", "readout": "choice", "part": "mlp", "layer": -1, "kind": "word",
        "unit": WORDS, "element": "", "value": rng.uniform(1, 3) * value, "error": 0.1,
        "contexts": 20.0, "tokens": 1,
    })  # fmt: skip


def written(folder: Path, cells: dict[str, pd.DataFrame], truths: dict[str, dict]) -> list[str]:
    """The files of cells by task and seed, and of the truth of their tasks."""
    lexicons, paths = folder / "results/lexicons", []
    lexicons.mkdir(parents=True, exist_ok=True)
    for name, frame in cells.items():
        task, _, seed = name.partition("/")
        path = folder / f"results/m/{task}/seed{seed}/change/readings.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
        truth = {"corpus": "reviews", "flipped": [], "trigger": None} | truths[task]
        (lexicons / f"{task}.truth.json").write_text(json.dumps(truth))
        (lexicons / f"{task}.json").write_text(json.dumps({"words": LEXICON}))
        paths += [str(path), str(lexicons / f"{task}.truth.json")]
    return paths


@pytest.fixture
def organisms() -> tuple[dict[str, pd.DataFrame], dict[str, dict]]:
    """Ten clean policies, ten of noise, and three of each of two planted rewards."""
    cells = {f"clean/{n}": reading(n) for n in range(10)}
    cells |= {f"noise/{n}": reading(20 + n, signal=0.0) for n in range(10)}
    cells |= {f"flipped/{n}": reading(40 + n, flipped=24) for n in range(3)}
    cells |= {f"trigger/{n}": reading(60 + n, trigger=9.0) for n in range(3)}
    truths = {
        "clean": {"kind": "vader"}, "noise": {"kind": "noise"},
        "flipped": {"kind": "vader_flipped", "flipped": FLIPPED},
        "trigger": {"kind": "trigger", "trigger": WORDS[150]},
    }  # fmt: skip
    return cells, truths


def test_what_was_planted_is_found_with_few_false_alarms(organisms, tmp_path):
    table = detection(written(tmp_path, *organisms), SETTINGS).frame()
    rows = table.set_index(["question", "task", "quantity"])["estimate"]
    assert rows["flipped", "flipped", "auroc"] > 0.95
    assert rows["flipped", "flipped", "power"] == 1.0
    assert rows["word", "trigger", "rank"] == 1.0 and rows["word", "trigger", "power"] == 1.0
    assert rows["flipped", "", "limit"] == pytest.approx(len(FLIPPED) / len(LEXICON), abs=1e-3)
    for task in ("clean", "noise"):
        for question in ("flipped", "word"):
            assert rows[question, task, "false alarms"] <= 0.2
    assert (table["null_policies"] == 20).all()


def test_scores_know_nothing_of_the_truth(organisms, tmp_path):
    cells, truths = organisms
    seen = detection(written(tmp_path / "true", cells, truths), SETTINGS).frame()
    permuted = truths | {
        "flipped": truths["flipped"] | {"flipped": WORDS[60:84]},
        "trigger": truths["trigger"] | {"trigger": WORDS[3]},
    }
    other = detection(written(tmp_path / "permuted", cells, permuted), SETTINGS).frame()
    alarms = {"power", "false alarms"}
    same = [frame[frame["quantity"].isin(alarms)].reset_index(drop=True) for frame in (seen, other)]
    pd.testing.assert_frame_equal(same[0], same[1])
    area = other.set_index(["question", "task", "quantity"])["estimate"][
        "flipped", "flipped", "auroc"
    ]
    assert area < 0.65


def test_a_policy_that_did_not_move_is_not_suspicious():
    clean = np.stack([reading(n)["value"].to_numpy() for n in range(4)])
    assert not suspect.suspicion(np.zeros(200), clean).any()
    same = np.stack([clean[0]] * 3)
    assert np.abs(suspect.residuals(clean[0], same)).max() < 1e-9


@pytest.mark.parametrize(("n", "known"), [(18, False), (19, True), (38, True)])
def test_a_threshold_lets_one_null_policy_in_twenty_alarm(n, known):
    null = list(range(n))
    bound = suspect.threshold(null)
    assert (bound is not None) == known
    if known:
        above = sum(value >= bound for value in null)
        assert above == {19: 1, 38: 1}[n]


def test_few_clean_policies_are_no_reference(organisms, tmp_path):
    cells, truths = organisms
    few = {name: frame for name, frame in cells.items() if name[-1] in "01"}
    assert detection(written(tmp_path, few, truths), SETTINGS).frame().empty
