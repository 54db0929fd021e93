"""The tables of interventions on rows of a known effect, and the stage in a configuration."""

import numpy as np
import pandas as pd
import pytest

from lfp.configuration import ConfigurationError
from lfp.costs import estimate
from lfp.costs.base import Cell, Cost
from lfp.files import artefacts
from lfp.grid import Grid
from lfp.settings import Machine
from lfp.tables.catalogue import TABLES
from lfp.tables.inputs import Plan
from lfp.tables.interventions.accounts import (
    attribution_fidelity,
    feature_circuit,
    feature_interactions,
)
from lfp.tables.interventions.costs import interventions
from lfp.tables.rows import TableSettings
from tests.test_configuration import changed

SETTINGS = TableSettings(resamples=200)
PROMPTS = 48


def rows_of(what: str, change: float, kl: float, **labels) -> pd.DataFrame:
    """Completions of an intervention that changes the reward by `change` at every prompt."""
    prompts = np.arange(PROMPTS)
    named = {
        "what": what, "action": "zero", "strength": np.nan, "where": "all", "site": "mlp",
        "layers": "1,2", "matched_to": "", "draw": 0, "matched": np.nan, "features": 4,
    }  # fmt: skip
    rng = np.random.default_rng(int(100 * kl))
    values = {
        "prompt": prompts, "reward": np.sin(prompts) + change + 0.05 * rng.normal(size=PROMPTS),
        "kl": kl * rng.gamma(4, 0.25, PROMPTS), "tokens": 9, "distinct_2": 0.9,
    }  # fmt: skip
    return pd.DataFrame(values | named | labels)


@pytest.fixture
def written(tmp_path):
    """Files of a cell whose selector `carries` takes all of the gap, and `idle` nothing."""
    nothing = {"action": "", "layers": "", "features": 0}
    frames = [
        rows_of("none", 0.0, 0.0, **nothing),
        rows_of("other model", -1.0, 0.0, **nothing),
        rows_of("carries", -1.0, 2.0),
        rows_of("carries", -0.5, 2.5, action="clamp", strength=20.0),
        rows_of("idle", 0.0, 1.0),
        rows_of("empty", 0.0, 0.0, layers="", features=0),
        *(
            rows_of("random", 0.1 * (draw - 9), 2.0 + draw / 50, matched_to="carries", draw=draw)
            for draw in range(19)
        ),
    ]
    frames[0]["reward"], frames[0]["kl"] = np.sin(np.arange(PROMPTS)), 0.0
    completions = pd.concat(frames, ignore_index=True)
    neutral = completions.rename(columns={"prompt": "text"}).assign(
        loss=lambda frame: 3.0 + 0.1 * (frame["what"] == "carries")
    )
    sets = pd.DataFrame({
        "what": ["carries"], "effect": [-1.0], "faithfulness": [0.9], "completeness": [0.1],
        "minimality": [0.2], "self_repair": [-0.3], "instances": [8],
        "self_repair_resampled": [np.linspace(-0.8, 0.2, 1001).tolist()],
    })  # fmt: skip
    folder = tmp_path / "results" / "m" / "t" / "seed0" / "interventions" / "tied"
    files = {"policy.parquet": completions, "policy/neutral.parquet": neutral}
    for name, frame in (files | {"policy/sets.parquet": sets}).items():
        artefacts.write_table(folder / name, frame, {})
    return [str(folder / name) for name in (*files, "policy/sets.parquet")]


def test_the_table_of_interventions_says_what_each_does_at_which_cost(written):
    table = interventions(written, SETTINGS).frame().set_index(["what", "action", "strength"])
    assert set(table.index) == {
        ("carries", "zero", ""), ("carries", "clamp", "20"), ("idle", "zero", ""),
        ("empty", "zero", ""),
    }  # fmt: skip
    carries = table.loc[("carries", "zero", "")]
    assert carries["estimate"] == pytest.approx(-1.0, abs=0.05)
    assert carries["ci_low"] < -1 < carries["ci_high"] and carries["p"] < 1e-6
    assert carries["gap_recovery"] == pytest.approx(1.0, abs=0.05)
    assert carries["reward_per_nat"] == pytest.approx(-0.5, abs=0.1)
    assert carries["d_ce"] == pytest.approx(0.1) and carries["self_repair"] == -0.3
    # Of 19 sets one is as far from 0 on the other side; itself counts as well.
    assert carries["draws"] == 19 and carries["p_random"] in (1 / 20, 2 / 20, 3 / 20)
    assert carries["subject"] == "policy" and carries["n_features"] == 4
    idle = table.loc[("idle", "zero", "")]
    assert idle["ci_low"] < 0 < idle["ci_high"] and idle["draws"] == 0
    assert pd.isna(idle["faithfulness"]) and pd.isna(idle["p_random"])
    # All interventions of one subject are corrected together.
    assert (table["p_adjusted"].dropna() >= table["p"].dropna()).all()
    assert carries["p_adjusted"] > carries["p"]
    empty = table.loc[("empty", "zero", "")]
    assert pd.isna(empty["estimate"]) and "chose no latent" in empty["method"]


@pytest.mark.parametrize(
    ("confidence", "ends"), [(0.95, (-0.775, 0.175)), (0.5, (-0.55, -0.05)), (0.999, (None, None))]
)
def test_intervals_of_criteria_have_the_confidence_of_the_tables(written, confidence, ends):
    """Eight texts carry no interval of 99.9 %, for their range holds the median less often."""
    table = interventions(written, TableSettings(resamples=200, confidence=confidence)).frame()
    carries = table[(table["what"] == "carries") & (table["action"] == "zero")].iloc[0]
    low, high = carries["self_repair_low"], carries["self_repair_high"]
    assert (low, high) == pytest.approx(ends) if ends[0] else pd.isna(low) and pd.isna(high)
    assert pd.isna(carries["faithfulness_low"])


def test_without_a_held_out_text_a_row_says_so(written):
    for path in written:
        frame = artefacts.read_table(path)
        artefacts.write_table(path, frame.iloc[:0], {})
    [row] = interventions(written, SETTINGS).frame().to_dict("records")
    assert np.isnan(row["estimate"]) and "no held-out text" in row["method"]


def rewritten(paths, change) -> list[str]:
    """The files, of which `change` has made other completions."""
    artefacts.write_table(paths[0], change(artefacts.read_table(paths[0])), {})
    return paths


def carries(paths) -> pd.Series:
    """The row of the selector that carries, under the action ``zero``."""
    table = interventions(paths, SETTINGS).frame().set_index(["what", "action"])
    return table.loc[("carries", "zero")]


def test_one_prompt_gives_no_estimate_and_no_share_of_the_gap(written):
    row = carries(rewritten(written, lambda frame: frame[frame["prompt"] == 0]))
    assert row["n"] == 1 and np.isnan(row["estimate"]) and row["gap_recovery"] is None


def test_a_gap_that_is_the_same_at_every_prompt_is_told_from_0(written):
    def levelled(frame):
        other = frame["what"] == "other model"
        return frame.assign(reward=np.where(other, np.sin(frame["prompt"]) - 2, frame["reward"]))

    row = carries(rewritten(written, levelled))
    assert row["gap"] == pytest.approx(-2)
    assert row["gap_recovery"] == pytest.approx(-row["estimate"] / 2)


@pytest.mark.parametrize("unit", [0.1, 0.3, 0.7])
def test_random_sets_that_change_as_much_are_counted_whatever_the_rounding(written, unit):
    def tied(frame):
        frame = frame.assign(reward=unit * frame["reward"])
        chosen = frame[(frame["what"] == "carries") & (frame["action"] == "zero")]
        values = chosen.set_index("prompt")["reward"]
        drawn = frame["matched_to"] == "carries"
        frame.loc[drawn, "reward"] = frame.loc[drawn, "prompt"].map(values)
        return frame

    assert carries(rewritten(written, tied))["p_random"] == 1


def cell_file(folder, name: str, frame: pd.DataFrame) -> list[str]:
    """A file below the subject of a cell."""
    path = folder / "results/m/t/seed0/interventions/tied/policy" / f"{name}.parquet"
    artefacts.write_table(path, frame, {})
    return [str(path)]


def test_the_fidelity_of_attribution_is_that_of_its_rows(tmp_path):
    rng = np.random.default_rng(0)
    attributed = rng.normal(size=60)
    frame = pd.DataFrame({
        "layer": np.repeat([0, 3], 30), "feature": [*range(30)] * 2, "attributed": attributed,
        "exact": np.r_[1.5 * attributed[:30], rng.normal(size=30)],
        "drawn_as": "top",
    })  # fmt: skip
    unmeasured = frame.assign(exact=np.nan, drawn_as="")
    both = pd.concat([frame, unmeasured], ignore_index=True)
    table = attribution_fidelity(cell_file(tmp_path, "effects", both), SETTINGS).frame()
    rows = table.set_index("layer")
    assert list(rows.index) == [-1, 0, 3]
    assert rows.loc[0, "estimate"] == pytest.approx(1) and rows.loc[0, "slope"] == pytest.approx(
        1.5
    )
    assert rows.loc[0, ["top_k_overlap", "sign_agreement"]].tolist() == [1, 1]
    assert rows.loc[3, "ci_low"] < 0 < rows.loc[3, "ci_high"]
    expected = frame["attributed"].corr(frame["exact"], method="spearman")
    assert rows.loc[-1, "estimate"] == pytest.approx(expected)
    assert rows.loc[-1, "ci_low"] < expected < rows.loc[-1, "ci_high"]
    assert rows.loc[-1, "speedup"] == pytest.approx(120 / 3) and rows.loc[0, "live"] == 60


def test_pairs_and_edges_have_rows_and_their_absence_a_reason(tmp_path):
    pairs = pd.DataFrame({
        "layer": [0], "feature": [2], "other_layer": [1], "other_feature": [7], "machine": [-0.9],
        "interaction": [-1.0], "standard_error": [0.1], "df": [4.0], "linear_r2": [0.7],
        "machine_r2": [0.95], "masks": [300],
    })  # fmt: skip
    [row] = (
        feature_interactions(cell_file(tmp_path, "interactions", pairs), SETTINGS)
        .frame()
        .to_dict("records")
    )
    assert (row["latent"], row["other_latent"], row["estimate"]) == ("0/2", "1/7", -1.0)
    # The quantile of t with 4 degrees of freedom is 2.776 for 95 %, and 2.132 for 90 %.
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-1.2776, -0.7224), abs=1e-4)
    file, narrow = cell_file(tmp_path, "interactions", pairs), TableSettings(confidence=0.9)
    [row] = feature_interactions(file, narrow).frame().to_dict("records")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-1.2132, -0.7868), abs=1e-4)
    [row] = (
        feature_interactions(cell_file(tmp_path, "interactions", pairs.iloc[:0]), SETTINGS)
        .frame()
        .to_dict("records")
    )
    assert np.isnan(row["estimate"])
    edges = pd.DataFrame({
        "layer": 0, "feature": 1, "to_layer": 2, "to_feature": [5] * 8 + [6] * 8,
        "instance": [*range(8)] * 2, "weight": np.r_[np.linspace(-1.2, -0.8, 8), np.zeros(8)],
        "kept": [True] * 8 + [False] * 8, "faithfulness": 0.8, "nodes": 3,
    })  # fmt: skip
    [row] = (
        feature_circuit(cell_file(tmp_path, "circuit", edges), SETTINGS).frame().to_dict("records")
    )
    assert (row["latent"], row["to_latent"], row["edges"]) == ("0/1", "2/5", 1)
    assert row["estimate"] == pytest.approx(-1.0) and row["ci_high"] < 0
    none = edges.assign(kept=False)
    [row] = (
        feature_circuit(cell_file(tmp_path, "circuit", none), SETTINGS).frame().to_dict("records")
    )
    assert np.isnan(row["estimate"]) and "no edge" in row["method"]


# ------------------------------------------------------------------------------------ configuration

NAMES = ("interventions", "attribution_fidelity", "feature_interactions", "feature_circuit")


def asking(**interventions) -> Grid:
    cell = {"model": "tiny", "task": "vader"}
    return Grid(changed(cells=[cell | {"settings": {"interventions": interventions}}]))


def test_a_cell_has_interventions_where_its_settings_ask_for_them():
    assert not any(TABLES[name].inputs(Plan(asking())) for name in NAMES)
    grid = asking(selectors=["attribution"], subjects=["policy", "base"], prompts=10)
    made = {name: TABLES[name].inputs(Plan(grid)) for name in NAMES}
    folder = f"results/tiny/vader/seed0/interventions/{grid.cells[0].main}"
    assert made["attribution_fidelity"] == [
        f"{folder}/{subject}/effects.parquet" for subject in ("policy", "base")
    ]
    assert len(made["interventions"]) == 6 and f"{folder}/base.parquet" in made["interventions"]
    assert made["feature_interactions"] == made["feature_circuit"] == []
    more = Plan(asking(selectors=["factorisation"], circuit=5))
    assert all(TABLES[name].inputs(more) for name in NAMES)
    settings = grid.job_settings("interventions", grid.cells[0], {"subject": "base"})
    assert settings["ablation"]["prompts"] == 10 and settings["subject"] == "base"
    assert "arms" not in settings["ablation"] and settings["dpo"] == {}


def test_a_selector_that_nobody_knows_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'attribution'"):
        asking(selectors=["atribution"])


@pytest.mark.parametrize("stage", ["interventions", "steering"])
def test_the_direction_of_the_output_head_is_none_of_a_site_beside_the_stream(stage):
    def at(site: str, **more) -> Grid:
        asked = {"interventions": more, "autoencoder": {"site": site}}
        asked[stage] = asked.get(stage, {}) | {"selectors": ["direction"]}
        if stage == "steering":
            asked[stage] |= {"vectors": ["random"]}
        return Grid(changed(cells=[{"model": "tiny", "task": "vader", "settings": asked}]))

    with pytest.raises(ConfigurationError, match="set interventions.direction to `mean_shift`"):
        at("heads")
    assert at("heads", direction="mean_shift").cells and at("attn").cells


def test_interventions_cost_what_the_settings_ask_for():
    def costs(**asked) -> dict[str, Cost]:
        [row] = asking(**asked).estimate_settings()["cells"]
        machine = Machine(tflops=1.0, utilisation=0.5, sampling_utilisation=0.1)
        return {c.stage: c for c in estimate.cell_costs(Cell.of_row(row, machine))}

    assert "interventions" not in costs()
    one = costs(selectors=["explained"], draws=20)["interventions"].exaflops
    two = costs(selectors=["explained"], draws=20, actions=["clamp"], clamps=[1.0, 2.0])
    assert 1.2 * one < two["interventions"].exaflops < 2 * one
