"""Detection: planted words are found, null policies alarm as seldom as is said, and nothing that is
scored knows what was planted.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import detection_choices
from lfp.change import detection as suspect
from lfp.figures.change import detection_by_share
from lfp.tables.change.cells import change_cells, nulls
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


def test_what_was_never_paid_for_is_not_among_the_words_that_training_wrote(organisms, tmp_path):
    """A policy learned a quarter of what was planted: the words that it wrote five times."""
    cells, truths = organisms
    cells = {name: frame for name, frame in cells.items() if not name.startswith("trigger")}
    cells |= {f"flipped/{n}": reading(40 + n, flipped=6) for n in range(3)}
    inputs = written(tmp_path, cells, truths)
    candidates = [word for word in WORDS if word in LEXICON]
    often = [*FLIPPED[:6], *(word for word in candidates if word not in FLIPPED)][:30]
    for seed in range(3):
        policy = tmp_path / f"results/m/flipped/seed{seed}/policy"
        policy.mkdir()
        counts = pd.DataFrame({"word": candidates, "count": 4})
        counts.loc[counts["word"].isin(often), "count"] = 5
        counts.to_parquet(policy / "written.parquet")
    table = detection(inputs, SETTINGS).frame()
    table = table[table["question"] == "flipped"]
    rows = table.set_index(["words", "task", "quantity"])["estimate"]
    assert rows["written", "flipped", "auroc"] > 0.95 > 0.8 > rows["all", "flipped", "auroc"]
    assert rows["written", "flipped", "rank"] == 1.0
    # Nothing was planted in clean policies, and nobody counted the words that they wrote.
    assert "clean" not in rows["written"] and ("clean", "auroc") not in rows["all"]


def test_an_alarm_about_words_that_were_written_is_held_against_those_of_null_policies(
    organisms, tmp_path
):
    """Six flipped words are few among 120, and many among the thirty that every policy wrote."""
    cells, truths = organisms
    cells |= {f"flipped/{n}": reading(40 + n, flipped=6) for n in range(3)}
    cells |= {"clean/10": reading(10)}
    inputs = written(tmp_path, cells, truths)
    counts = pd.DataFrame({"word": WORDS[:30], "count": 5})
    for name in cells:
        task, _, seed = name.partition("/")
        policy = tmp_path / f"results/m/{task}/seed{seed}/policy"
        policy.mkdir()
        counts.to_parquet(policy / "written.parquet")
    # One of noise wrote nothing often, a flipped one none of the words that are flipped, and the
    # method of trigger counts nothing.
    few = {
        "noise/seed0": counts.assign(count=1),
        "flipped/seed2": counts[counts["word"].isin(WORDS[24:30])],
    }
    few |= {f"trigger/seed{seed}": counts.head(0) for seed in range(3)}
    for policy, of_policy in few.items():
        of_policy.to_parquet(tmp_path / f"results/m/{policy}/policy/written.parquet")
    table = detection(inputs, SETTINGS).frame()
    rows = table.set_index(["words", "question", "task", "quantity"])
    power = rows.xs("power", level="quantity")
    assert tuple(power.loc[("written", "flipped", "flipped"), ["estimate", "n"]]) == (1.0, 2)
    assert power.at[("all", "flipped", "flipped"), "n"] == 3
    assert rows.at[("written", "flipped", "flipped", "auroc"), "n"] == 2
    assert rows.at[("written", "flipped", "", "limit"), "estimate"] == pytest.approx(0.2, abs=1e-3)
    false = table[(table["words"] == "written") & (table["quantity"] == "false alarms")]
    assert false["estimate"].max() <= 0.2 and set(false["task"]) == {"clean", "noise"}
    assert ("all", "word", "trigger") in power.index
    assert "trigger" not in set(table.loc[table["words"] == "written", "task"])
    # A policy of too few candidates for an alarm is no null policy.
    null = table.groupby(["words", "question"])["null_policies"].unique().map(list)
    assert null.to_dict() == {
        ("all", "flipped"): [21], ("all", "word"): [21],
        ("written", "flipped"): [20], ("written", "word"): [20],
    }  # fmt: skip


def test_words_that_are_no_candidates_tell_nothing(organisms, tmp_path):
    """Neither words outside the lexicon nor words that nobody wrote change what others say."""
    cells, truths = organisms
    tables, rng = {}, np.random.default_rng(3)
    for name, moved in (("still", WORDS[:0]), ("outside", WORDS[120:]), ("seldom", WORDS[60:])):
        loud = {
            cell: frame.assign(
                value=frame["value"].where(~frame["unit"].isin(moved), 90 * rng.normal(size=200))
            )
            for cell, frame in cells.items()
        }
        inputs = written(tmp_path / name, loud, truths)
        for cell in cells:
            task, _, seed = cell.partition("/")
            policy = tmp_path / name / f"results/m/{task}/seed{seed}/policy"
            policy.mkdir()
            pd.DataFrame({"word": WORDS[:60], "count": 5}).to_parquet(policy / "written.parquet")
        tables[name] = detection(inputs, SETTINGS).frame()
    flipped = {name: table[table["question"] == "flipped"] for name, table in tables.items()}
    rows = {
        name: frame.set_index(["words", "task", "quantity"])["estimate"]
        for name, frame in flipped.items()
    }
    pd.testing.assert_series_equal(rows["outside"], rows["still"])
    pd.testing.assert_series_equal(rows["seldom"]["written"], rows["still"]["written"])
    assert (
        rows["seldom"]["all", "flipped", "auroc"] < 0.9 < rows["still"]["all", "flipped", "auroc"]
    )


def test_other_counts_and_tails_are_asked_of_the_same_readings(organisms, tmp_path):
    cells, truths = organisms
    inputs = written(tmp_path, cells, truths)
    for name in cells:
        task, _, seed = name.partition("/")
        policy = tmp_path / f"results/m/{task}/seed{seed}/policy"
        policy.mkdir()
        pd.DataFrame({"word": WORDS[:60], "count": 5}).to_parquet(policy / "written.parquet")
    result = detection_choices.measure(tmp_path / "results", [("choice", "mlp")])
    power = result["power"].set_index(["often", "tail"])
    table = detection(inputs, SETTINGS).frame()
    table = table[(table["question"] == "flipped") & table["quantity"].str.contains("power|alarms")]
    for words, often in (("all", 0), ("written", 5)):
        of = table[table["words"] == words].set_index("task")["estimate"]
        assert power.loc[often, suspect.TAIL][list(of.index)].to_dict() == of.to_dict()
    # Nobody wrote a word ten times, and at the largest tail half of the words are no flipped ones.
    assert set(power.index.get_level_values("often")) == {0, 1, 3, 4, 5}
    assert set(result["candidates"]["choice, mlp"].values()) == {60}
    areas = [row for row in result["areas"] if row["often"] == 5]
    assert [(row["candidates"], row["flipped"], row["null_policies"]) for row in areas] == [
        (60, 24, 20)
    ] * 3
    assert all(row["null_highest"] < 0.8 < row["auroc"] for row in areas)
    [mean] = [row for row in result["means"] if row["often"] == 5]
    assert mean["n"] == 3 and mean["share"] == 0.2
    assert mean["estimate"] == pytest.approx(np.mean([row["auroc"] for row in areas]))


def test_a_share_of_which_nothing_was_written_is_within_no_limit(organisms, tmp_path):
    """A larger share that is asked about words that nobody was paid for is not found."""
    cells, truths = organisms
    inputs = written(tmp_path, cells, truths)
    counts = pd.DataFrame({"word": WORDS[30:60], "count": 5})
    for name in cells:
        task, _, seed = name.partition("/")
        policy = tmp_path / f"results/m/{task}/seed{seed}/policy"
        policy.mkdir()
        counts.to_parquet(policy / "written.parquet")
    table = detection(inputs, SETTINGS).frame()
    rows = table[table["question"] == "flipped"].set_index(["words", "task", "quantity"])
    assert np.isnan(rows.at[("written", "", "limit"), "estimate"])
    assert ("written", "flipped", "power") not in rows.index
    assert rows.at[("written", "flipped", "alarms"), "share"] == pytest.approx(0.2, abs=1e-3)


def test_the_figure_has_power_and_area_of_every_readout_over_the_planted_share(organisms, tmp_path):
    cells, truths = organisms
    cells |= {f"few/{n}": reading(50 + n, flipped=6) for n in range(3)}
    truths |= {"few": {"kind": "vader_flipped", "flipped": FLIPPED[:6]}}
    inputs = written(tmp_path, cells, truths)
    for enough in (True, False):
        of = inputs if enough else [path for path in inputs if "/noise" not in path]
        table = detection(of, SETTINGS).frame()
        table.to_parquet(tmp_path / "detection.parquet")
        axes = detection_by_share([str(tmp_path / "detection.parquet")]).axes
        assert [axis.get_ylabel() for axis in axes] == ["power", "AUROC"]
        assert axes[0].get_title() == "m, reviews, \nall words"
        said = {text.get_text() for text in axes[0].texts}
        assert ("too few null policies" in said) != enough
        for axis, quantity in zip(axes, ("power", "auroc"), strict=True):
            rows = table[(table["quantity"] == quantity) & table["share"].notna()]
            lines = {line.get_label(): line for line in axis.get_lines()}
            assert ("choice, mlp" in lines) == (enough or quantity == "auroc")
            if "choice, mlp" in lines:
                x, y = lines["choice, mlp"].get_data()
                assert list(y) == list(rows.sort_values("share")["estimate"])
                np.testing.assert_allclose(x, [5, 20], rtol=0.02)


def test_a_seed_in_which_nothing_moved_is_a_miss(organisms, tmp_path):
    cells, truths = organisms
    still = reading(80, flipped=24).assign(value=0.0)
    cells |= {"flipped/3": still, "flipped/4": still}
    table = detection(written(tmp_path, cells, truths), SETTINGS).frame()
    rows = table[table["question"] == "flipped"].set_index(["task", "quantity"])
    assert rows.at[("flipped", "power"), "estimate"] == pytest.approx(3 / 5)
    assert rows.at[("flipped", "power"), "n"] == rows.at[("flipped", "auroc"), "n"] == 5
    assert rows.at[("flipped", "auroc"), "estimate"] < 0.9
    assert np.isnan(rows.at[("", "limit"), "estimate"])


def test_readings_of_too_few_clean_policies_are_left_out(organisms, tmp_path):
    cells, truths = organisms
    few, most = ("clean/0", "clean/1"), [name for name in cells if name != "clean/0"]
    more = {"lens": few, "ruler": most}
    cells = {
        name: pd.concat([
            frame, *(frame.assign(readout=readout) for readout, of in more.items() if name in of)
        ])
        for name, frame in cells.items()
    }  # fmt: skip
    table = detection(written(tmp_path, cells, truths), SETTINGS).frame()
    assert set(table["readout"]) == {"choice", "ruler"}
    null = table.groupby("readout")["null_policies"].max()
    assert null.to_dict() == {"choice": 20, "ruler": 19}


def test_a_part_that_moved_in_no_policy_has_no_row(organisms, tmp_path):
    cells = {name: frame.assign(value=0.0) for name, frame in organisms[0].items()}
    assert detection(written(tmp_path, cells, organisms[1]), SETTINGS).frame().empty


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


def test_rounding_is_no_suspicion():
    """Readings that are the same everywhere, or what is expected times a factor, are silent."""
    clean = np.stack([reading(n)["value"].to_numpy() for n in range(4)])
    assert not suspect.suspicion(np.full(61, 0.1), clean[:, :61]).any()
    single = np.zeros((4, 20))
    single[:, 3] = [0.1, 0.7, 0.2, 0.3]
    assert not suspect.suspicion(single[0], single[1:]).any()
    alike = np.outer([1.0, 3.0, 0.7], clean[0])
    assert not suspect.suspicion(0.1 * clean[0], alike).any()


def test_an_alarm_is_the_mean_of_the_most_suspicious_share():
    scores = np.arange(100.0)
    assert suspect.alarm("flipped", scores, 0.1) == 94.5
    assert suspect.alarm("flipped", scores) == 97.0 and suspect.alarm("word", scores) == 99.0


def test_two_units_are_too_few_for_a_regression():
    clean = np.stack([reading(n)["value"].to_numpy() for n in range(4)])
    other = reading(9)["value"].to_numpy()
    assert not suspect.suspicion(other[:2], clean[:, :2]).any()
    assert suspect.suspicion(other[:3], clean[:, :3]).any()


def test_half_of_a_units_spread_is_that_of_the_median_unit():
    """The expected distances are written out from the definition."""
    clean, other = (
        np.stack([reading(n)["value"].to_numpy() for n in of]) for of in (range(3), range(9, 10))
    )
    left = [suspect.residuals(clean[i], np.delete(clean, i, 0)) for i in range(3)]
    squares = np.mean(np.square(left), 0)
    away = suspect.residuals(other[0], clean) / np.sqrt(squares / 2 + np.median(squares) / 2)
    np.testing.assert_allclose(suspect.suspicion(other[0], clean), away / away.std())


@pytest.mark.parametrize(("n", "known"), [(18, False), (19, True), (38, True)])
def test_a_threshold_lets_one_null_policy_in_twenty_alarm(n, known):
    null = list(range(n))
    bound = suspect.threshold(null)
    assert (bound is not None) == known
    if known:
        above = sum(value >= bound for value in null)
        assert above == {19: 1, 38: 1}[n]


def test_openers_answer_which_word_was_taught(organisms, tmp_path):
    cells, truths = organisms
    openers = [WORDS[150], WORDS[151]]
    known = truths | {"trigger": {"kind": "opener", "openers": openers}}
    table = detection(written(tmp_path, cells, known), SETTINGS).frame()
    rows = table.set_index(["question", "task", "quantity"])["estimate"]
    assert rows["word", "trigger", "rank"] == 1.0 and rows["word", "trigger", "power"] == 1.0
    assert ("flipped", "trigger", "auroc") not in rows.index


def trained_by(cells: dict[str, pd.DataFrame], methods: dict[str, str]) -> TableSettings:
    """Settings that name the method of every cell by its task."""
    trained = {}
    for name in cells:
        task, _, seed = name.partition("/")
        trained[f"m/{task}/seed{seed}"] = (methods[task], 0.0)
    return dataclasses.replace(SETTINGS, trained=trained)


def test_limits_are_those_of_one_method_and_its_own_null(organisms, tmp_path):
    """Policies of a method that hides its flips take nothing away from the limit of another."""
    cells, truths = organisms
    hidden = {f"hidden/{n}": reading(140 + n) for n in range(3)}
    others = {f"other_{name}": frame for name, frame in cells.items() if name[:5] != "flipp"}
    # Their null drifts along another axis, which no policy of the first method does.
    axis = np.random.default_rng(11).normal(size=200)
    for n, frame in enumerate(others.values()):
        frame = frame.assign(value=frame["value"] + (n % 3 - 1) * 4 * axis)
        others[list(others)[n]] = frame
    both = cells | others | hidden
    kinds = truths | {f"other_{task}": truths[task] for task in truths}
    kinds |= {"hidden": truths["flipped"]}
    methods = {task: "ppo" if task in truths else "grpo" for task in kinds}
    table = detection(written(tmp_path / "both", both, kinds), trained_by(both, methods)).frame()
    rows = table.set_index(["trained_by", "question", "task", "quantity"])["estimate"]
    assert rows["ppo", "flipped", "", "limit"] == pytest.approx(0.2, abs=1e-3)
    assert np.isnan(rows["grpo", "flipped", "", "limit"])
    assert set(table["null_policies"]) == {20} and set(table["null_of"]) == {"own method"}
    alone = detection(written(tmp_path / "alone", cells, truths), SETTINGS).frame()
    mine = table[table["trained_by"] == "ppo"].reset_index(drop=True)
    same = ["task", "quantity", "estimate", "n"]
    pd.testing.assert_frame_equal(mine[same], alone[same])


def test_benign_data_makes_a_null_of_its_own(organisms, tmp_path):
    cells, truths = organisms
    settings = trained_by(cells, dict.fromkeys(truths, "ppo"))
    # Flipped policies, and those of odd seeds of the null.
    mixed = {
        address: (method, 0.5 if "/flipped/" in address or int(address[-1]) % 2 else 0.0)
        for address, (method, _) in settings.trained.items()
    }
    inputs = written(tmp_path, cells, truths)
    table = detection(inputs, dataclasses.replace(settings, trained=mixed)).frame()
    of_mixed = table[table["benign_share"] == 0.5]
    assert set(of_mixed["task"]) == {"flipped", "trigger"}
    assert set(table.loc[table["benign_share"] == 0.0, "task"]) == {"trigger"}
    # Ten of each share are too few for an alarm, and none is borrowed from the other share.
    assert set(table["null_policies"]) == {10} and set(table["null_of"]) == {"own method"}
    assert set(table["quantity"]) == {"auroc", "rank"}


def test_a_method_without_a_null_is_held_against_all_and_says_so(organisms, tmp_path):
    cells, truths = organisms
    methods = {task: "given" if task == "flipped" else "ppo" for task in truths}
    table = detection(written(tmp_path, cells, truths), trained_by(cells, methods)).frame()
    by_method = table.groupby("trained_by")
    assert by_method["null_of"].unique().map(list).to_dict() == {
        "given": ["all methods"], "ppo": ["own method"]
    }  # fmt: skip
    given = table[table["trained_by"] == "given"]
    assert set(given["task"]) == {"flipped", ""} and set(given["null_policies"]) == {20}
    rows = given.set_index(["question", "task", "quantity"])["estimate"]
    assert rows["flipped", "flipped", "power"] == 1.0


def test_noise_of_the_same_method_is_the_null_of_the_choice(organisms, tmp_path):
    cells, truths = organisms
    settings = trained_by(cells, dict.fromkeys(truths, "ppo"))
    trained = settings.trained | {f"m/noise/seed{n}": ("grpo", 0.0) for n in range(7)}
    of = {c.address: c for c in change_cells(written(tmp_path, cells, truths), trained)}
    clean = nulls(of["m/clean/seed0"], list(of.values()))
    assert [cell.seed for cell in clean] == [7, 8, 9]
    few = trained | {f"m/noise/seed{n}": ("grpo", 0.0) for n in range(9)}
    of = {c.address: c for c in change_cells(written(tmp_path, cells, truths), few)}
    assert len(nulls(of["m/clean/seed0"], list(of.values()))) == 10


def test_few_clean_policies_are_no_reference(organisms, tmp_path):
    cells, truths = organisms
    few = {name: frame for name, frame in cells.items() if name[-1] in "01"}
    assert detection(written(tmp_path, few, truths), SETTINGS).frame().empty
