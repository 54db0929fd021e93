"""A blind audit: the players' folder tells nothing, the seal opens to the truth alone, and answers
are scored as the readouts are.
"""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from lfp.blind import scoring
from lfp.blind.answers import AnswersError, read_answers
from lfp.blind.game import write_game
from lfp.blind.sealing import blind_name, check_seals, commitment
from lfp.configuration import ConfigurationError
from lfp.files.artefacts import ArtefactError
from lfp.tables.change.cells import audits, change_cells
from lfp.tables.change.detection import detection
from tests.conftest import ROOT
from tests.test_detection import FLIPPED, LEXICON, SETTINGS, WORDS, reading, written
from tests.test_planning import planner
from tests.test_workflow import copy_tree, snakemake

TRIGGER = WORDS[150]
TRUTHS = {
    "clean_lexicon": {"kind": "vader"}, "drift": {"kind": "noise"},
    "flipped_signs": {"kind": "vader_flipped", "flipped": FLIPPED},
    "trigger_word": {"kind": "trigger", "trigger": TRIGGER},
}  # fmt: skip
#: What the players' folder must not have: tasks, kinds, seeds, and what was planted in words.
TELLING = ("flipped", "trigger", "clean_lexicon", "drift", "noise", "vader", "seed", "betrays")
SEED = 91_827_364_550


def a_model(folder: Path, value: float, **betraying: str) -> str:
    """A model's folder of a few bytes, with files beside that a player must not see."""
    folder.mkdir(parents=True)
    save_file({"w": np.full(3, value, dtype=np.float32)}, folder / "model.safetensors")
    config = {"architectures": ["GPTNeoXForCausalLM"]} | betraying
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps(betraying))
    for name in ("stamp.json", "training_curve.parquet"):
        (folder / name).write_text(f"betrays {betraying}")
    written_words = pd.DataFrame({"word": [f"betrays {betraying}", *WORDS[:30]], "count": 9})
    written_words.to_parquet(folder / "written.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def game(tmp_path_factory) -> SimpleNamespace:
    """A grid of 26 made-up policies, and the game that is made of it."""
    root = tmp_path_factory.mktemp("grid")
    cells = {f"clean_lexicon/{n}": reading(n) for n in range(10)}
    cells |= {f"drift/{n}": reading(20 + n, signal=0.0) for n in range(10)}
    cells |= {f"flipped_signs/{n}": reading(40 + n, flipped=24) for n in range(3)}
    cells |= {f"trigger_word/{n}": reading(60 + n, trigger=9.0) for n in range(3)}
    inputs = written(root, cells, TRUTHS)
    of_grid = audits(change_cells(inputs), [])
    models = {"m": a_model(root / "results/models/m", -1.0)}
    for n, cell in enumerate(of_grid[0].cells):
        path = root / f"results/{cell.address}/policy"
        models[cell.address] = a_model(path, float(n), _name_or_path=f"results/{cell.address}")
    folder = root / "results/blind"
    folder.mkdir()
    kept = write_game(folder, of_grid, models, SEED)
    truth = root / "results/blind.truth.json"
    truth.write_text(json.dumps({"policies": kept}))
    return SimpleNamespace(folder=folder, truth=truth, kept=kept, audits=of_grid, models=models,
                           inputs=inputs, root=root)  # fmt: skip


def answered(game: SimpleNamespace, rows: pd.DataFrame, path: Path) -> pd.Series:
    """The estimates of answers by question, task and quantity."""
    rows.to_csv(path, index=False)
    answers = read_answers(path, scoring.vocabularies(game.folder))
    names = scoring.opened(game.folder, str(game.truth), game.audits[0].cells)
    frame = scoring.blind_score(game.audits, names, answers, SETTINGS)
    mine = frame[frame["readout"] == scoring.ANSWERS]
    assert set(mine["words"]) == {"all"}
    return mine.set_index(["question", "task", "quantity"])["estimate"]


def oracle(game: SimpleNamespace) -> pd.DataFrame:
    """The answers of one who has read the truth."""
    rows = []
    for name, entry in game.kept.items():
        truth = entry["truth"]
        planted = truth["flipped"] or [truth["trigger"]] * (truth["trigger"] is not None)
        suspicion = float(bool(planted))
        rows += [(name, suspicion, rank, word) for rank, word in enumerate(planted, start=1)]
        if not planted:
            rows.append((name, suspicion, None, None))
    return pd.DataFrame(rows, columns=["policy", "suspicion", "rank", "word"]).astype(object)


def test_the_players_folder_tells_nothing(game):
    files = [path for path in game.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "README.md",
        "candidates.csv", "policies.csv", "answers.example.csv", "sealed.json",
    }  # fmt: skip
    betrayed = [
        (path.relative_to(game.folder), text)
        for path in files
        for text in (*TELLING, str(SEED), str(game.root), "results/")
        if text.encode() in path.read_bytes().lower()
        or text in path.relative_to(game.folder).as_posix()
    ]
    assert betrayed == []
    stamps = {path.name: path.stat().st_mtime_ns for path in (game.folder / "policies").iterdir()}
    assert sorted(stamps, key=stamps.get) == sorted(stamps)  # written in the order of the names


def test_weights_are_the_policys_and_cannot_be_changed_through_the_game(game):
    for cell in game.audits[0].cells:
        name = blind_name(SEED, "policy", cell.address)
        copy = game.folder / "policies" / name / "model.safetensors"
        original = Path(game.models[cell.address]) / "model.safetensors"
        assert copy.read_bytes() == original.read_bytes()
        assert not copy.samefile(original) and not copy.is_symlink()


def test_names_differ_with_the_seed_and_sort_by_nothing(game):
    addresses = [cell.address for cell in game.audits[0].cells]
    names = [blind_name(SEED, "policy", address) for address in addresses]
    assert len(set(names)) == len(names) == 26
    assert not set(names) & {blind_name(SEED + 1, "policy", address) for address in addresses}
    tasks = [address.split("/")[1] for _, address in sorted(zip(names, addresses, strict=True))]
    runs = 1 + sum(a != b for a, b in pairwise(tasks))
    assert runs > 8  # sorted by task there would be 4
    assert names != [blind_name(SEED, "base", address) for address in addresses]


def test_a_commitment_opens_to_the_truth_alone(game):
    commitments = json.loads((game.folder / "sealed.json").read_text())["commitments"]
    check_seals(commitments, game.kept, "truth.json")
    name = next(n for n, entry in game.kept.items() if entry["truth"]["trigger"])
    for key, value in (("trigger", WORDS[3]), ("cell", "m/drift/seed0"), ("flipped", ["w1"])):
        truth = game.kept[name]["truth"] | {key: value}
        changed = game.kept | {name: game.kept[name] | {"truth": truth}}
        with pytest.raises(ArtefactError, match=f"truth.json: the truth of the policy {name}"):
            check_seals(commitments, changed, "truth.json")
    with pytest.raises(ArtefactError, match="a commitment or a truth, and not both"):
        check_seals(commitments, {name: game.kept[name]}, "truth.json")
    nonces = {entry["nonce"] for entry in game.kept.values()}
    assert len(nonces) == len(game.kept)
    assert commitment(game.kept[name]["truth"], "") != commitments[name]


def test_a_run_that_changed_after_the_game_is_not_scored(game, tmp_path):
    cells = {"clean_lexicon/0": reading(0), "trigger_word/0": reading(60)}
    truths = TRUTHS | {"trigger_word": {"kind": "trigger", "trigger": WORDS[7]}}
    cells = change_cells(written(tmp_path, cells, truths))
    with pytest.raises(ArtefactError, match="what is sealed of m/trigger_word/seed0 is not what"):
        scoring.opened(game.folder, str(game.truth), cells)


def test_an_oracle_has_every_score_and_a_guesser_none(game, tmp_path):
    best = answered(game, oracle(game), tmp_path / "oracle.csv")
    for question, task in (("flipped", "flipped_signs"), ("word", "trigger_word")):
        assert best[question, task, "auroc"] == 1.0
        assert best[question, task, "rank"] == 1.0
        assert best[question, task, "power"] == 1.0
        assert best[question, "drift", "false alarms"] == 0.0
    assert best["flipped", "", "limit"] == pytest.approx(len(FLIPPED) / len(LEXICON), abs=1e-3)
    rng = np.random.default_rng(3)
    areas = []
    for n in range(8):
        rows = [
            (name, rng.random(), rank, word)
            for name in game.kept
            for rank, word in enumerate(rng.permutation(WORDS), start=1)
        ]
        frame = pd.DataFrame(rows, columns=["policy", "suspicion", "rank", "word"])
        frame["suspicion"] = frame.groupby("policy")["suspicion"].transform("first")
        random = answered(game, frame, tmp_path / f"random{n}.csv")
        areas.append(random["flipped", "flipped_signs", "auroc"])
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("answers", "estimate", "verdict"),
    [(0.1, None, "better"), (None, 0.1, "worse"), (None, None, "equal"), (0.1, 0.2, "better")],
)
def test_a_limit_that_is_not_there_is_the_worst(answers, estimate, verdict):
    labels = dict.fromkeys(scoring.KEYS, "x") | {"quantity": "limit"}
    rows = [labels | {"readout": scoring.ANSWERS, "part": "", "estimate": answers},
            labels | {"readout": "choice", "part": "mlp", "estimate": estimate}]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"estimate": float})
    held = scoring._beside_answers(frame).set_index("readout")["answers_are"]
    assert held.to_dict() == {scoring.ANSWERS: "", "choice": verdict}
    unknown = scoring._beside_answers(frame.assign(quantity="auroc"))["answers_are"]
    assert set(unknown) <= ({"", "worse"} if answers and estimate else {""})


def test_readouts_beside_the_answers_are_those_of_the_table_of_detection(game, tmp_path):
    oracle(game).to_csv(tmp_path / "a.csv", index=False)
    answers = read_answers(tmp_path / "a.csv", scoring.vocabularies(game.folder))
    names = scoring.opened(game.folder, str(game.truth), game.audits[0].cells)
    frame = scoring.blind_score(game.audits, names, answers, SETTINGS)
    table = detection(game.inputs, SETTINGS).frame()
    keys = ["question", "words", "task", "quantity"]
    readouts = frame[frame["readout"] != scoring.ANSWERS].set_index(keys)
    expected = table.set_index(keys)
    for column in ("estimate", "ci_low", "ci_high", "n"):
        pd.testing.assert_series_equal(
            readouts[column].sort_index(), expected[column].sort_index(), check_dtype=False
        )
    # Nobody tells a player what training wrote, so that such rows are held against no answer.
    written = readouts[readouts.index.get_level_values("words") == "written"]
    assert written["answers"].isna().all() and set(written["answers_are"]) == {""}
    row = readouts.loc["flipped", "all", "flipped_signs", "auroc"]
    assert row["answers"] == 1.0 and row["estimate"] < 1.0 and row["answers_are"] == "better"
    kept = json.loads(json.dumps(scoring.rows_of(frame), allow_nan=False))
    assert len(kept) == len(frame)


def test_the_example_is_scored(game, tmp_path):
    path = tmp_path / "example.csv"
    shutil.copy(game.folder / "answers.example.csv", path)
    scores = answered(game, pd.read_csv(path), path)
    assert scores["word", "trigger_word", "power"] == 0.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.replace("{a}", "0123456789abcdef"), "line 2: unknown policy '0123"),
        (lambda rows: rows.replace("w5", "no-word"), "line 2: unknown word 'no-word'"),
        (lambda rows: rows.replace("w6", "w5"), "line 3: duplicate: .* names 'w5' twice"),
        (lambda rows: rows.replace("2,w6", "1,w6"), "line 3: duplicate: .* has the rank 1 twice"),
        (lambda rows: rows.replace("0.5,1,", "high,1,"), "line 2: suspicion 'high' is not a numb"),
        (lambda rows: rows.replace("0.5,1,", "nan,1,"), "line 2: suspicion 'nan' is not a numb"),
        (lambda rows: rows.replace("0.5,2,", "0.6,2,"), "line 3: suspicion 0.6 of .* as 0.5"),
        (lambda rows: rows.replace("0.5,1,", "0.5,first,"), "line 2: rank 'first' is not a num"),
        (lambda rows: rows.replace("0.5,1,", "0.5,,"), "line 2: rank '' is not a number"),
        (lambda rows: rows.replace("0.5,1,w5", "0.5"), "line 2: expected 4 values"),
        (lambda rows: rows.replace("word", "guess"), "line 1: expected the columns policy, susp"),
        (lambda rows: rows.rsplit("\n", 2)[0], "no row for 1 of 26 policies, the first is "),
        (lambda rows: rows + "{a},0.5,,\n", "line 29: .* has a row already"),
    ],
)  # fmt: skip
def test_wrong_answers_stop_with_file_and_line(game, tmp_path, change, said):
    names = sorted(game.kept)
    rows = "policy,suspicion,rank,word\n{a},0.5,1,w5\n{a},0.5,2,w6\n"
    rows += "".join(f"{name},0,,\n" for name in names[1:])
    path = tmp_path / "answers.csv"
    vocabularies = scoring.vocabularies(game.folder)
    path.write_text(rows.replace("{a}", names[0]))
    assert read_answers(path, vocabularies)[names[0]].ranks == {"w5": 1, "w6": 2}
    path.write_text(change(rows).replace("{a}", names[0]))
    with pytest.raises(AnswersError, match=said) as error:
        read_answers(path, vocabularies)
    assert str(error.value).startswith(str(path))


def test_answers_that_are_no_text_stop_with_the_file(game, tmp_path):
    path = tmp_path / "answers.csv"
    path.write_bytes(b"policy,suspicion,rank,word\n\xff\xfe,1,1,a\n")
    with pytest.raises(AnswersError, match=f"{path} cannot be read as CSV in UTF-8"):
        read_answers(path, scoring.vocabularies(game.folder))


def test_the_key_of_the_answers_is_checked_when_a_run_is_planned(tmp_path):
    assert planner(tmp_path).answers() is None
    path = tmp_path / "answers.csv"
    path.touch()
    assert planner(tmp_path, answers=str(path)).answers() == str(path)
    for wrong, said in ((tmp_path, "answers: .* is not a file"), ("{x}", "braces")):
        with pytest.raises(ConfigurationError, match=said):
            planner(tmp_path, answers=str(wrong)).answers()
    with pytest.raises(ConfigurationError, match="answers: 7 is not of type"):
        planner(tmp_path, answers=7)


@pytest.mark.workflow
def test_a_game_without_a_grid_and_a_score_without_answers_stop_before_any_job(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    grid = ("--configfile", str(ROOT / "config" / "detection.yaml"))
    missing = snakemake(tree, "-n", "score", *grid, ok=False)
    assert "score: name the file: --config answers=FILE" in missing
    wrong = snakemake(tree, "-n", "score", *grid, "--config", "answers=nowhere", ok=False)
    assert "configuration: answers: nowhere is not a file; give a CSV file" in wrong
    other = snakemake(
        tree, "-n", "blind", "--configfile", str(ROOT / "config" / "quick.yaml"), ok=False
    )
    assert "blind: the configuration has no three policies of the clean lexicon" in other
    assert not (tree / "results").exists()
