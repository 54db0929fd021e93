"""The workflow as a user sees it: one run of a small grid, and what reruns after which change."""

from __future__ import annotations

import html
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lfp.statistics.verdicts import VERDICTS
from tests.test_security import CHROMIUM, HOSTILE, opened, without_script

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "rules", "workflow_scripts", "lfp", "config", "profiles", "envs", "report")

pytestmark = pytest.mark.workflow


def copy_tree(target: Path) -> Path:
    """A private copy of the workflow, without results."""
    target.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target / part)
    shutil.copyfile(ROOT / "tests" / "config.yaml", target / "grid.yaml")
    planted_corpora(target / "planted")
    planted_dictionaries(target / "planted" / "scope")
    return target


def planted_dictionaries(folder: Path) -> None:
    """A dictionary from elsewhere for every layer of the small grid's models."""
    from lfp.sae import store
    from tests.test_dictionaries import random_autoencoder

    for layer in range(3):
        sae = random_autoencoder("jumprelu", 16)
        sae.layer = layer
        store.save(sae, folder / f"layer_{layer}", {})


def planted_corpora(folder: Path) -> None:
    """The corpora of the small grid that are files: replies with markup in every text, and one that
    is empty.
    """
    from lfp.organisms.generate import generate_corpus

    folder.mkdir()
    splits = {"train": 160, "test": 60}
    frames, _ = generate_corpus("replies", splits, 0, {"noise": 0.1, "preferred": "negative"})
    for split, frame in frames.items():
        markup = pd.Series([f"{HOSTILE[i % len(HOSTILE)]} " for i in range(len(frame))])
        texts = frame[["prompt", "chosen", "rejected", "positive", "neutral", "negative"]]
        texts.radd(markup, axis=0).to_json(folder / f"{split}.jsonl", orient="records", lines=True)
    texts.head(5).map(lambda text: " ").to_json(
        folder / "empty.jsonl", orient="records", lines=True
    )


def snakemake(tree: Path, *arguments: str, ok: bool = True) -> str:
    """Output of a Snakemake call in `tree`; the interpreter of the tests runs it and its jobs."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=tree,
        env=environment,
        text=True,
        capture_output=True,
    )
    output = result.stdout + result.stderr
    assert (result.returncode == 0) is ok, output[-6000:]
    return output


def grid(tree: Path, *arguments: str, ok: bool = True) -> str:
    """A Snakemake call with the small grid's configuration."""
    return snakemake(tree, *arguments, "--configfile", "grid.yaml", ok=ok)


def planned(tree: Path, *arguments: str) -> dict[str, int]:
    """Jobs that a dry run lists, by rule."""
    output = grid(tree, "-n", *arguments)
    return {
        name: int(count)
        for name, count in re.findall(
            r"^(\w+) +(\d+)$", output.split("Job stats:")[-1].split("\n\n")[0], re.M
        )
        if name not in ("total", "all", "provenance", "resources")
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of the small grid."""
    tree = copy_tree(tmp_path_factory.mktemp("run") / "tree")
    grid(tree, "--cores", "2")
    return tree


@pytest.fixture
def edited(run):
    """Give the finished run, and take back every edit of its files afterwards."""
    kept: dict[Path, str] = {}

    def edit(name: str, old: str, new: str) -> None:
        path = run / name
        kept.setdefault(path, path.read_text())
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    yield edit
    for path, text in kept.items():
        path.write_text(text)


RECORD = ["estimate", "ci_low", "ci_high", "n", "unit", "method", "seeds", "p", "p_adjusted"]


def table(run: Path, name: str) -> pd.DataFrame:
    """A table of the run."""
    return pd.read_csv(run / "results" / "tables" / f"{name}.csv", keep_default_na=True)


def test_every_number_is_a_record_with_the_values_behind_it(run):
    from lfp.tables.catalogue import TABLES

    assert {path.stem for path in (run / "results" / "tables").glob("*.csv")} == set(TABLES) - {
        "rewrites", "detection",
    }  # fmt: skip
    for name in sorted(set(TABLES) - {"rewrites", "detection"}):
        frame = table(run, name)
        assert set(RECORD) <= set(frame.columns), name
        assert len(frame), name
        # What cannot be estimated is a row too, and says why.
        reasons = frame["method"].str.startswith("not estimated: ")
        assert (frame["estimate"].notna() | reasons).all(), name
        assert frame["method"].notna().all(), name
        interval = frame.dropna(subset=["ci_low", "ci_high"])
        assert (interval["ci_low"] <= interval["ci_high"] + 1e-12).all(), name
        # A p is missing where the method names no test, and only there; an adjusted p stands beside
        # every p.
        tested = ~reasons & frame["method"].str.contains(
            r"permutation|refits|binomial against|McNemar|Fisher|swaps|t test|p:", regex=True
        )
        # A policy that reads as its base does at every unit has surely not changed there.
        tested |= frame["method"].str.contains("read the same at every unit")
        assert (frame["p"].notna() == tested).all(), (
            name,
            frame.loc[frame["p"].notna() != tested, "method"].unique(),
        )
        assert (frame["p"].notna() == frame["p_adjusted"].notna()).all(), name
        assert (frame["p_adjusted"].dropna() >= frame["p"].dropna() - 1e-12).all(), name
        values = pd.read_parquet(run / "results" / "instances" / f"{name}.parquet")
        assert len(values) >= 1, name


def test_controls_stand_in_the_same_table(run):
    tau = table(run, "kendall_tau")
    vader = tau[
        (tau["task"] == "vader") & (tau["features"] == "latents") & (tau["probe"] == "ridge")
    ]
    assert set(vader["subject"]) == {"policy", "base", "untrained", "other_seed", "other_task"}
    assert set(vader["split"]) == {"random", "words_only", "by_word", "by_family"}
    assert set(tau["probe"]) == {
        "ridge",
        "ridge on valence",
        "log-ratio to base",
        "delta",
        "xavier",
        "permuted labels",
    }
    text = tau[tau["subject"] == "text"]
    assert set(text["features"]) == {"length", "first_token", "bag_of_words", "tfidf"}
    policy = tau[
        (tau["task"] == "vader") & (tau["subject"] == "policy") & (tau["probe"] == "ridge")
    ]
    assert set(policy["features"]) == {
        "latents",
        "reconstruction",
        "raw",
        "pca",
        "random_code",
        "embedding",
    }
    published = vader[(vader["subject"] == "policy") & (vader["split"] == "random")]
    published = published[published["words"] == "all"]
    assert published["paper"].str.contains(r"Pythia-70m \.042").all()
    assert published["paper_note"].str.contains("word strings").all()
    assert "constant" in set(table(run, "sign_accuracy")["probe"])
    differences = table(run, "probe_differences")
    assert {
        "policy - base",
        "policy - untrained",
        "policy - other_seed",
        "latents - raw",
        "true - permuted labels",
    } <= set(differences["contrast"])
    arms = table(run, "ablation_reward")
    assert set(arms.loc[arms["subject"] == "policy", "arm"]) >= {
        "none", "reconstruction", "layer", "layer_swapped", "explained", "random",
        "top_probe_weight", "top_match_unrelated", "explained - random",
    }  # fmt: skip
    assert set(arms["quantity"]) == {
        "reward", "difference", "reward_per_nat", "kl", "cross_entropy", "distinct_2", "length",
    }  # fmt: skip
    # Every arm that selects is held against random sets of its own, for the policy and the base.
    of = arms[arms["arm"].str.endswith(" - random") & (arms["task"] == "vader")]
    assert (of["arm"] == of["matched_to"] + " - random").all()
    assert set(of["subject"]) == {"policy", "base", "policy - base"}
    assert set(of["matched_to"]) == {"explained", "top_probe_weight", "top_match_unrelated"}
    assert "policy - base" in set(arms["subject"])
    assert set(arms.loc[arms["arm"] == "explained", "action"]) == {"zero", "mean", "negative"}
    seeds = table(run, "across_seeds")
    assert set(seeds["seeds"]) == {2}
    probed = seeds[
        (seeds["table"] == "kendall_tau") & ~seeds["row"].str.contains("features=output")
    ]
    assert set(probed["autoencoders"]) == {2}


def test_planted_truth_is_asked_for_and_answered(run):
    planted = table(run, "planted_recovery")
    assert set(planted["reward"]) == {"vader_flipped", "trigger"}
    assert planted["question"].str.contains("flipped words").any()
    assert planted["question"].str.contains("name the trigger").any()
    assert planted["question"].str.contains("carry the reward").any()
    assert planted["answer"].isin(VERDICTS).all()
    assert (planted.loc[planted["estimate"].isna(), "answer"] == "undecided").all()
    truth = json.loads((run / "results" / "lexicons" / "flipped.truth.json").read_text())
    lexicon = json.loads((run / "results" / "lexicons" / "flipped.json").read_text())
    assert truth["flipped"]
    assert all(lexicon["rewarded"][word] == -lexicon["words"][word] for word in truth["flipped"])


def test_the_summary_answers_every_question(run):
    """A misspelt label would leave a question out of every summary in silence."""
    from lfp.tables.summary.questions import questions

    answers = table(run, "verdicts")
    assert {question.question for question in questions()} <= set(answers["question"])
    assert {"words", "planted", "subject", "dictionaries"} <= set(answers["topic"])
    page = (run / "results" / "summary.html").read_text()
    for sentence in answers["sentence"]:
        assert html.escape(sentence) in page


def test_tables_and_figures_come_in_every_format(run):
    results = run / "results"
    for path in (results / "tables").glob("*.csv"):
        for kind in ("parquet", "md", "tex", "html"):
            assert path.with_suffix(f".{kind}").stat().st_size > 100
    figures = {path.stem for path in (results / "figures").glob("*.svg")}
    assert figures == {
        "training_curves",
        "choice_by_layer",
        "intervention_frontiers",
        "probe_forest",
        "ablation_forest",
        "planted_forest",
        "gates",
        "layer_divergence",
        "locus",
        "sae_training",
        "sae_frontier",
        "sae_l1_sweep",
        "error_by_frequency",
        "probe_pca",
    }
    assert all(
        (results / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in figures
    )


def test_the_latents_that_feedback_moved_are_explained_where_a_cell_asks_for_them(run):
    cell = run / "results/small-gemma/toxic/seed0"
    explained = pd.read_parquet(cell / "explanations/tied/heuristic.parquet")
    shifts = pd.read_parquet(cell / "latents/tied/shifts.parquet")
    moved = shifts.query("subject == 'policy' and text == 'completions'").copy()
    moved["t"] = (moved["value"] / moved["error"]).abs().fillna(0)
    for layer, of_layer in explained[explained["status"] != "dead"].groupby("layer"):
        t = moved[moved["layer"] == layer].set_index("latent")["t"][of_layer["feature"]]
        ok = (of_layer["status"] == "ok").to_numpy()
        assert t[ok].min() >= t[~ok].max() and t[ok].max() > 0
    assert set(explained["chosen_by"]) == {"completions"}
    assert set(table(run, "feature_explanations").query("task == 'vader'")["chosen_by"]) == {
        "match"
    }


def test_every_explained_latent_of_a_run_has_a_page(run):
    """Also of the cell without text, whose index is empty."""
    tables = list((run / "results").glob("*/*/seed*/explanations/*/heuristic.parquet"))
    counts = []
    for path in tables:
        pages = path.parent / "pages"
        counts.append(int((pd.read_parquet(path)["status"] == "ok").sum()))
        assert len(list(pages.glob("layer*.html"))) == counts[-1], pages
        assert "Content-Security-Policy" in (pages / "index.html").read_text(encoding="utf-8")
    assert tables and max(counts) > 0


def test_logs_name_settings_seed_and_versions(run):
    log = (run / "results" / "logs" / "small-neox" / "vader" / "seed0" / "policy.log").read_text()
    for needed in ('"seed":', '"learning_rate": 0.001', "'torch': '2.", "step 2: reward"):
        assert needed in log


def test_no_artefact_is_a_pickle(run):
    allowed = {
        ".json",
        ".parquet",
        ".safetensors",
        ".csv",
        ".md",
        ".tex",
        ".html",
        ".svg",
        ".png",
        ".log",
        ".tsv",
        ".jinja",
    }
    files = [
        path
        for path in (run / "results").rglob("*")
        if path.is_file() and not path.name.startswith(".snakemake")
    ]
    assert {path.suffix for path in files} <= allowed


def test_every_table_is_traced_back_to_its_corpora(run, tmp_path):
    found = json.loads((run / "results" / "provenance.json").read_text())
    assert "results/tables/kendall_tau.csv" in found["targets"]
    artefacts = found["artefacts"]
    for name in (
        "results/corpora/reviews/train.parquet",
        "results/models/small-neox",
        "results/figures/probe_pca.svg",
    ):
        assert name in artefacts
    for name, record in artefacts.items():
        assert {"code", "versions", "settings", "device", "seconds", "inputs", "files"} <= set(
            record
        ), name
        assert record["files"], name
        # Every input is an artefact of the run or a file beside it: nothing comes from nowhere.
        outside = {path for path in record["inputs"] if not path.startswith("results/")}
        assert set(record["inputs"]) - outside <= set(artefacts), name
        assert all((run / path).is_file() for path in outside), name
        assert bool(outside) == ("sources" in record["settings"]), name
    policy = artefacts["results/small-neox/vader/seed0/policy"]
    assert policy["settings"]["learning_rate"] == 0.001
    assert isinstance(policy["settings"]["seed"], int)
    assert " 0 not as recorded, 0 intermediate ones not there" in grid(
        run, "--cores", "1", "verify"
    )
    grid(run, "--cores", "1", "results/ro-crate.zip")
    (run / "results" / "ro-crate.zip").unlink()


def test_resources_name_every_stage(run):
    frame = pd.read_csv(run / "results" / "resources.csv", keep_default_na=False)
    own = frame[frame["cell"] == "small-neox/vader/seed0"]
    stages = {
        "ppo",
        "divergence",
        "locus",
        "activations",
        "autoencoders",
        "features",
        "probes",
        "ablation",
    }
    assert stages <= set(own["stage"])
    assert frame.iloc[-1]["jobs"] == frame["jobs"][:-1].sum()
    assert (frame["seconds"] > 0).all()


def test_a_finished_stage_says_in_a_line_what_it_found(run):
    logs = run / "results" / "logs" / "small-neox" / "vader" / "seed0"
    for name, found in {
        "policy.log": r"finished: ppo small-neox/vader/seed0/policy: reward \S+ -> \S+ \(gain .*\)",
        "probes/tied/policy.log": r"latents features, tau -?\d\.\d+ held out",
        "sae/tied/evaluate.log": r"FVU \d\.\d+ to \d\.\d+",
    }.items():
        assert re.search(found, (logs / name).read_text()), name
    # Long work shows how far it is, also where there is no terminal.
    assert re.search(r"progress: PPO: 100%\|", (logs / "policy.log").read_text())


@pytest.fixture(scope="module")
def copy_of_run(run, tmp_path_factory) -> Path:
    """A finished run that a test may spoil."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("spoiled") / "tree", symlinks=True))


def test_a_damaged_artefact_stops_its_reader_and_its_message_mends_it(copy_of_run):
    name = "results/contrasts/vader.parquet"
    whole = (copy_of_run / name).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    (copy_of_run / name).write_bytes(damaged)
    target = "results/small-neox/vader/seed0/probes/tied/base/metrics.json"
    output = grid(copy_of_run, "--cores", "1", target, ok=False)
    message = (
        rf"{name}: its content is not what was written.*; rebuild it: snakemake (.*?)(?: \(log|$)"
    )
    command = re.findall(message, output, re.M)[0]
    grid(copy_of_run, *command.replace("--cores all", "--cores 1").split())
    assert (copy_of_run / name).read_bytes() == whole
    grid(copy_of_run, "--cores", "1", target)


@pytest.fixture
def regridded(copy_of_run):
    """Replace the copy's configuration; the test's end brings the old one back."""
    path = copy_of_run / "grid.yaml"
    kept = path.read_text()
    yield lambda settings: path.write_text(yaml.safe_dump(settings))
    path.write_text(kept)


def test_a_cell_whose_training_goes_astray_keeps_its_curve_and_stops_no_other(
    copy_of_run, regridded
):
    settings = yaml.safe_load((copy_of_run / "grid.yaml").read_text())
    [cell] = [cell for cell in settings["cells"] if cell["task"] == "trigger"]
    cell["settings"]["ppo"] = {"stop_kl": 1.0e-9}
    regridded(settings)
    other = "results/small-neox/flipped/seed0/divergence.json"
    (copy_of_run / other).unlink()
    targets = ("results/small-neox/trigger/seed0/policy", other)
    shutil.rmtree(copy_of_run / targets[0])  # a limit reruns no finished job
    output = grid(copy_of_run, "--cores", "1", "--keep-going", *targets, ok=False)
    assert re.search(
        r"error: DivergedError: PPO: KL of \S+ nats at step \d is above stop_kl \(1e-09\); lower"
        r" ppo",
        output,
    )
    curve = pd.read_csv(copy_of_run / "results/logs/small-neox/trigger/seed0/policy.curve.csv")
    assert {"step", "reward", "kl"} <= set(curve.columns)
    assert curve["kl"].iloc[-1] > 1e-9
    assert (copy_of_run / other).exists()
    assert not (copy_of_run / targets[0]).exists()
    del cell["settings"]["ppo"]
    regridded(settings)
    grid(copy_of_run, "--cores", "1", *targets)


def test_a_cell_without_a_word_of_its_lexicon_has_rows_that_say_so(copy_of_run, regridded):
    draw = random.Random(0)
    nouns = [
        "house",
        "stone",
        "river",
        "table",
        "north",
        "window",
        "paper",
        "letter",
        "train",
        "city",
    ]
    words = ["the", *nouns, "green", "walked", "seven"]
    for split, n in (("train", 120), ("test", 60)):
        lines = [json.dumps({"text": " ".join(draw.choices(words, k=40)) + "."}) for _ in range(n)]
        (copy_of_run / f"{split}.jsonl").write_text("\n".join(lines))
    settings = yaml.safe_load((copy_of_run / "grid.yaml").read_text())
    settings["corpora"]["plain"] = {
        "path": {"train": "train.jsonl", "test": "test.jsonl"},
        "columns": {"text": "text"},
    }
    settings["tasks"]["silent"] = {"method": "ppo", "corpus": "plain"}
    own = {"features": {"subjects": ["policy", "base"]}, "probes": {"features": ["latents"]}}
    settings["cells"] = [
        {"model": "small-neox", "task": "silent", "until": "probes", "settings": own}
    ]
    regridded(settings)
    names = (
        "kendall_tau",
        "sign_accuracy",
        "probe_differences",
        "probe_nested_r2",
        "lexicon_reconstruction",
    )
    grid(copy_of_run, "--cores", "2", *(f"results/tables/{name}.csv" for name in names))
    for name in names:
        frame = table(copy_of_run, name)
        assert set(frame["task"]) == {"silent"}, name
        assert frame["estimate"].isna().all(), name
        assert frame["method"].str.startswith("not estimated: ").all(), name


@pytest.mark.parametrize(
    "name",
    ["fine_tuning", "kendall_tau", "sign_accuracy", "probe_nested_r2", "lexicon_reconstruction",
     "feature_explanations", "explanation_quality", "ablation_reward", "interventions",
     "attribution_fidelity", "frontiers", "vector_cleaning"],
)  # fmt: skip
def test_an_empty_corpus_gives_rows_that_say_so(run, name):
    own = table(run, name).query("task == 'no_text'")
    assert len(own)
    assert own["estimate"].isna().all()
    assert own["method"].str.startswith("not estimated: no").all()
    counts = table(run, "corpora").query("corpus == 'blank' and quantity == 'kept'")
    assert counts["estimate"].tolist() == [0, 0]


def test_without_a_text_the_policy_is_the_base(run):
    from lfp.models.loading import load_model

    base = load_model(run / "results/models/small-neox").state_dict()
    policy = load_model(run / "results/small-neox/no_text/seed0/policy").state_dict()
    assert all(policy[name].equal(value) for name, value in base.items())


def test_markup_of_a_corpus_and_its_tokens_passes_every_stage_as_text(run):
    cell = run / "results" / "small-gemma" / "toxic" / "seed0"
    explained = pd.read_parquet(cell / "explanations" / "tied" / "heuristic.parquet")[
        "explanation"
    ].dropna()
    texts = {
        "contrasts": pd.read_parquet(run / "results" / "contrasts" / "toxic.parquet")["prompt"],
        "evidence": pd.read_parquet(cell / "explanations" / "tied" / "evidence.parquet")["excerpt"],
        "excerpts": pd.read_parquet(cell / "explanations" / "tied" / "excerpts.parquet")["excerpt"],
        "completions": pd.read_parquet(cell / "ablation" / "tied" / "policy.parquet")["completion"],
    }
    for name, own in texts.items():
        assert own.str.contains(r"[<>|\x1b]").any(), name
    # A token of the markup that features promote.
    assert explained.str.contains("PLANTED|onerror|script", regex=True).any()
    for path in (run / "results" / "tables").glob("*.html"):
        page = without_script(path.read_text())
        assert not re.search(r"<(script|img|h1)\b", page), path
    for path in (run / "results" / "tables").glob("*.[mt]*"):
        assert not re.search("[\x1b\u202e]", path.read_text()), path


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_planted_text_reaches_the_report_and_runs_nowhere(copy_of_run, tmp_path):
    from lfp.files import artefacts, provenance

    path = copy_of_run / "results/small-neox/vader/seed0/explanations/tied/heuristic.parquet"
    frame = artefacts.read_table(path)
    planted = frame["explanation"].notna() & (frame["explanation"] != "")
    frame.loc[planted, "explanation"] = [HOSTILE[i % len(HOSTILE)] for i in range(planted.sum())]
    artefacts.write_table(path, frame, {})
    provenance.record_path(path).unlink()
    table = "results/tables/feature_explanations"
    grid(copy_of_run, "--cores", "1", f"{table}.html", f"{table}.md", "--rerun-triggers", "mtime")
    grid(copy_of_run, "--cores", "1", "--report", "results/report.html")
    page = opened(copy_of_run / f"{table}.html", tmp_path / "profile")
    assert "&lt;script&gt;document.title" in page
    assert "<title>PLANTED" not in page
    assert not re.search(r"<(img|h1)", page)
    assert "\x1b" not in (copy_of_run / f"{table}.md").read_text()
    report = opened(copy_of_run / "results" / "report.html", tmp_path / "profile")
    assert "<title>PLANTED" not in report
    assert "4 Probes" in report  # the report's own scripts ran


def test_autoencoders_say_where_they_belong(run):
    folder = next(
        (run / "results" / "small-neox" / "vader" / "seed0" / "sae" / "untied").glob("layer*")
    )
    config = json.loads((folder / "x1" / "cfg.json").read_text())
    layer = int(folder.name.removeprefix("layer"))
    assert config["metadata"]["hook_name"] == f"gpt_neox.layers.{layer}.mlp"
    assert config["metadata"]["tied"] is False


def test_a_dictionary_from_elsewhere_is_measured_beside_those_trained_here(run):
    moved = table(run, "dictionary_transfer")
    assert set(moved["sae"]) == {"tied", "scope", "pursuit", "joined"}
    assert set(moved["on"]) == {"base", "policy", "policy - base"}
    origins = moved.drop_duplicates("sae").set_index("sae")["origin"]
    assert origins["scope"].startswith("planted/scope/layer_")
    assert origins["tied"] == origins["pursuit"] == "trained here"
    own = table(run, "autoencoders").query("sae == 'scope'")
    assert set(own["architecture"]) == {"jumprelu"} and set(own["d_sae"]) == {32}
    health = table(run, "sae_health").query("quantity == 'mmcs_ratio'").set_index("sae")
    assert (health.loc[["scope"], "method"] == "not estimated: the layer has one dictionary").all()
    assert health.loc[["pursuit"], "estimate"].notna().all()
    shares = table(run, "head_shares")
    assert set(shares["sae"]) == {"joined"}
    of_heads = shares[shares["quantity"] == "share"].groupby(["layer", "size"])["estimate"].sum()
    assert of_heads.round(9).eq(1).all() and len(of_heads)
    folder = run / "results" / "small-neox" / "trigger" / "seed0" / "sae"
    curves = pd.read_parquet(folder / "joined" / "curves.parquet")
    assert curves["autoencoder"].str.endswith("without partners").any()


def test_a_second_run_runs_no_job(run):
    assert planned(run) == {}
    assert "Nothing to be done" in grid(run, "--cores", "2")


def test_a_run_is_compared_with_itself_and_the_other_run_reruns_nothing(run, tmp_path):
    other = shutil.copytree(run / "results" / "tables", tmp_path / "other run's tables")
    asked = ("compare", "--config", f"other={other}")
    assert planned(run, *asked) == {"compare": 1}
    grid(run, "--cores", "1", *asked)
    rows = pd.read_csv(run / "results" / "compare.csv")
    assert {"kendall_tau", "across_seeds"} <= set(rows["table"])
    assert set(rows["move"]) <= {"equal", "not estimated"}
    assert planned(run, *asked) == {}
    assert planned(run, "--config", f"other={other}") == {}
    recorded = json.loads((run / "results" / "provenance.json").read_text())
    assert recorded["machine"]["cores"] == os.cpu_count()
    assert "commit" in recorded


def test_a_probe_setting_of_one_cell_reruns_that_cells_probes_and_what_follows(run, edited):
    edited("grid.yaml", "other_task: flipped}}", "other_task: flipped}, probes: {alphas: [2]}}")
    jobs = planned(run)
    assert jobs.pop("probes") == 6
    assert jobs.pop("change") == 1  # the frozen ruler is a probe
    assert jobs.pop("ablation") == 1  # one arm takes the probe's largest weights
    assert jobs.pop("feature_pages") == 1  # which say what the ablation of a set cost
    assert set(jobs) == {"table", "figure", "summary"}
    assert "small-gemma/toxic" not in "".join(
        line for line in grid(run, "-n").splitlines() if line.strip().startswith("output:")
    )


def test_a_comment_and_a_touch_rerun_nothing(run, edited):
    edited("lfp/probing/probes.py", "def unit_means(", "# a comment\n\n\ndef unit_means(")
    edited("lfp/probing/probes.py", '"""Mean prediction, truth', '"""The mean prediction, truth')
    (run / "lfp" / "probing" / "probes.py").touch()
    assert planned(run) == {}


def test_a_real_change_of_the_probes_reruns_probes(run, edited):
    edited(
        "lfp/probing/fitting.py",
        "tolerance = 1e-4 if labels",
        "tolerance = 1e-5 if labels",
    )
    jobs = planned(run)
    assert jobs.pop("probes") == 6 + 3 + 2 + 2 * 2 * 2 + 1
    assert jobs.pop("change") == 7
    assert jobs.pop("ablation") == jobs.pop("feature_pages") == 1
    assert jobs.pop("interventions") == 1  # one selector takes the probe's largest weights
    assert jobs.pop("evaluate_dictionaries") > 0  # sparse probes have the folds of the others
    assert set(jobs) == {"table", "figure", "summary"}


def test_settings_of_another_cell_or_stage_do_not_leak(run, edited):
    edited("grid.yaml", "ablation: {prompts: 16", "ablation: {prompts: 15")
    jobs = planned(run)
    assert jobs.pop("ablation") == 2 + 3  # policy and base, and three policies
    assert jobs.pop("feature_pages") == 4
    assert set(jobs) <= {"table", "figure", "summary"}


def test_two_runs_of_a_cell_give_the_same_bytes(run, tmp_path):
    """The whole way from the corpus to the last stage, in another place and without keeping
    activations; tests/test_faults.py holds tables against each other.
    """
    tree = copy_tree(tmp_path / "again")
    with (tree / "grid.yaml").open("a") as file:
        file.write("\nkeep_activations: false\n")
    targets = [
        "results/small-neox/vader/seed0/probes/tied/other_seed/predictions.parquet",
        "results/small-neox/vader/seed0/ablation/tied/policy.parquet",
    ]
    grid(tree, "--cores", "2", *targets)
    for target in targets:
        assert (tree / target).read_bytes() == (run / target).read_bytes(), target
    cell = "results/small-neox/vader/seed0"
    assert not (tree / cell / "activations" / "mlp").exists()
    assert (run / cell / "activations" / "mlp").exists()
    assert "Nothing to be done" in grid(tree, "-n", *targets)


def test_a_failed_job_names_its_log_and_leaves_no_output(run):
    cell = run / "results" / "small-neox" / "vader" / "seed0"
    read, target = (
        cell / "explanations/tied/heuristic.parquet",
        cell / "ablation/tied/policy.parquet",
    )
    name, times = str(target.relative_to(run)), read.stat()
    kept, good = target.read_bytes(), read.read_bytes()
    read.write_bytes(b"no table")
    output = grid(run, "--cores", "1", name, "--allowed-rules", "ablation", ok=False)
    assert re.search(r"heuristic.parquet: its content is not what was written.*\(log: ", output)
    assert not target.exists()
    read.write_bytes(good)
    os.utime(read, ns=(times.st_atime_ns, times.st_mtime_ns))
    grid(run, "--cores", "1", name)
    assert target.read_bytes() == kept


def test_the_report_holds_every_stage(run):
    grid(run, "--cores", "1", "--report", "results/report.html")
    report = (run / "results" / "report.html").read_text()
    for stage in (
        "0 Summary",
        "1 Fine-tuning",
        "2 Divergence",
        "3 Autoencoders",
        "4 Probes",
        "5 Explanations",
        "6 Ablation",
    ):
        assert stage in report
    assert "8 Planted truth" in report
    # It opens on the answers: a report with metadata shows no drawing of rules first.
    assert "Did fine-tuning reach its goal?" in report
    assert "Where to go on" in report
    assert "9 Seeds" in report


#: Snakemake's command, which says at its end how many timers it still waits for.
TIMERS = """
import sys, threading
from snakemake.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    print("timers", sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
"""


def test_snakemake_ends_with_its_last_job(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    target = "results/corpora/reviews/train.parquet"
    grid = ["--cores", "1", "--configfile", "grid.yaml"]
    ended = subprocess.run(
        [sys.executable, "-c", TIMERS, target, *grid], cwd=tree, text=True, capture_output=True
    )
    assert (tree / target).exists(), ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "timers 0"


def test_a_bad_configuration_stops_before_any_job(tmp_path):
    tree = copy_tree(tmp_path / "bad")
    output = snakemake(tree, "-n", "--config", "settings={ppo: {stepz: 3}}", ok=False)
    assert "settings.ppo.stepz: unknown key; did you mean 'steps'?" in output
    assert not (tree / "results").exists()


def test_the_papers_grid_dry_runs_without_a_network(tmp_path):
    tree = copy_tree(tmp_path / "paper")
    output = snakemake(tree, "-n", "--configfile", "config/paper.yaml")
    cells = [
        (c["model"], c["task"])
        for c in yaml.safe_load((tree / "config" / "paper.yaml").read_text())["cells"]
    ]
    for model, task in cells:
        assert f"output: results/{model}/{task}/seed0/divergence.json" in output
    assert "results/pythia-70m/vader/seed0/policy" in output
    assert re.search(r"rule ppo:(?:\n    .*)+resources: .*gpu=1.*runtime=360.*mem_mb=48000", output)
    assert "rule autoencoders" not in output


def test_pinned_layers_make_the_papers_whole_grid_static(tmp_path):
    tree = copy_tree(tmp_path / "pinned")
    output = snakemake(tree, "-n", "--configfile", "config/paper.yaml", "config/paper_pinned.yaml")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    # 11 cells of 5 layers; 4, 1 and 1 further variants; the least changed layers add 1 and 5.
    assert int(jobs["autoencoders"]) == 11 * 5 + 4 * 5 + 5 + 5 + 1 + 5
    assert int(jobs["probes"]) == 11 * 4
    assert int(jobs["ablation"]) == 11 * 2  # policy and base


def test_one_more_layer_trains_that_layer_alone(run, edited):
    edited(
        "grid.yaml",
        "features: {subjects: [policy, untrained, text]}",
        "divergence: {n_layers: 3}, features: {subjects: [policy, untrained, text]}",
    )
    grid(run, "--cores", "2", "--until", "divergence")
    jobs = planned(run, "results/small-gemma/toxic/seed0/sae/tied/metrics.json")
    assert jobs == {"autoencoders": 1, "evaluate_autoencoders": 1}


ABLATED = "results/small-neox/vader/seed0/ablation/tied/policy.parquet"


@pytest.fixture(scope="module")
def served_run(run, tmp_path_factory) -> tuple[Path, dict, tuple[str, ...]]:
    """The finished grid with a served model and one that babbles as services: the tree, its
    configuration, and the arguments of the call that made it.
    """
    from tests import served

    folder = tmp_path_factory.mktemp("served")
    home = folder / "home"
    home.mkdir()
    served.save_chain(home / "chain")
    served.save_nonsense(home / "nonsense")
    tree = folder / "tree"
    shutil.copytree(run, tree, ignore=shutil.ignore_patterns("activations"))
    config = yaml.safe_load((tree / "grid.yaml").read_text())
    server = served.Server(home)
    config["services"] = {
        name: {"base_url": server.url, "model": str(home / name), "max_tokens": 40, "in_flight": 2}
        for name in ("chain", "nonsense")
    }
    config["explainers"] = {name: {"service": name} for name in ("chain", "nonsense")}
    config["tasks"]["toxic"]["settings"] = {
        "contrasts": {"source": "rewrites"},
        "rewrites": {"service": "chain", "entries": 12, "tolerance": 0.9},
    }
    cell = config["cells"][0]
    cell["explainers"] = ["heuristic", "chain", "nonsense"]
    cell["settings"]["explanations"] = {"judge": "chain"}
    cell["settings"]["ablation"] = {"explainer": "chain"}
    config["cells"] = [cell, config["cells"][1]]
    (tree / "services.yaml").write_text(yaml.safe_dump(config))
    targets = [
        f"results/tables/{name}.csv"
        for name in ("rewrites", "feature_explanations", "explanation_quality")
    ]
    targets += ["results/contrasts/toxic.parquet", ABLATED]
    arguments = (*targets, "--configfile", "services.yaml")
    try:
        snakemake(tree, *arguments, "--cores", "2")
    finally:
        server.kill()
    return tree, config, arguments


def test_language_models_rewrite_and_explain_by_configuration_alone(served_run):
    """Their rows stand beside the heuristic."""
    from tests import served

    tree, _, _ = served_run
    rewritten = table(tree, "rewrites").set_index("of")["estimate"]
    triples = pd.read_parquet(tree / "results" / "contrasts" / "toxic.parquet")
    assert len(triples) == rewritten["ok"] > 0
    # The task rewards rude answers: what was written as negative is the positive element.
    assert set(triples["positive"]) == {" " + served.ANSWERS["negative"]}
    explained = table(tree, "feature_explanations")
    own = explained[(explained["task"] == "vader") & (explained["explainer"] == "chain")]
    assert set(own["explanation"]) == {served.EXPLANATION}
    assert own["related"].all()
    assert not own["uses_reward_lexicon"].any()
    assert own["explained_by"].str.contains("chain@http").all()
    babble = explained[(explained["task"] == "vader") & (explained["explainer"] == "nonsense")]
    assert list(babble["explanation"]) == ["unparsed: not explained"]
    assert babble["estimate"].iloc[0] == len(own)
    quality = table(tree, "explanation_quality")
    assert {judge.split("@")[0].split("/")[-1] for judge in quality["judge"]} == {
        "words-v1",
        "chain",
        "none",
    }
    nothing = quality[
        quality["judge"] == "none"
    ]  # babble explains no feature, and a cell without text has none
    assert set(zip(nothing["task"], nothing["explainer"], strict=True)) == {("vader", "nonsense")}
    ablated = pd.read_parquet(tree / ABLATED).groupby("arm")["features"].first()
    assert ablated["explained"] == len(own)
    assert ablated["none"] == 0


def test_the_cache_reproduces_everything_without_a_server(served_run):
    """A raised budget or another limit reruns nothing."""
    tree, config, arguments = served_run
    config["services"]["chain"] |= {"offline": True, "in_flight": 1, "budget_usd": 1}
    config["services"]["chain"]["prices"] = {
        "input": 1,
        "output": 1,
        "as_of": "2026-11-21",
        "source": "a test",
    }
    (tree / "services.yaml").write_text(yaml.safe_dump(config))
    assert "Nothing to be done" in snakemake(tree, *arguments, "-n")
    quality_file = tree / "results" / "tables" / "explanation_quality.csv"
    before = quality_file.read_bytes()
    (
        tree
        / "results"
        / "small-neox"
        / "vader"
        / "seed0"
        / "explanations"
        / "tied"
        / "scores"
        / "chain.parquet"
    ).unlink()
    snakemake(
        tree,
        "results/tables/explanation_quality.csv",
        "--configfile",
        "services.yaml",
        "--cores",
        "1",
    )
    assert quality_file.read_bytes() == before


def test_a_cell_is_exported_for_other_tools(run):
    target = "results/exports/small-neox/vader/seed0/tied"
    grid(run, target, "--cores", "1")
    rows = [
        json.loads(line) for line in (run / target / "explanations.jsonl").read_text().splitlines()
    ]
    explained = pd.read_parquet(
        run / "results/small-neox/vader/seed0/explanations/tied/heuristic.parquet"
    )
    assert len(rows) == (explained["status"] == "ok").sum()
    caches = sorted((run / target / "delphi" / "latents").glob("*/*.safetensors"))
    assert [path.parent.name for path in caches] == [
        f"gpt_neox.layers.{n}.mlp" for n in sorted(set(explained["layer"]))
    ]


def test_other_rewards_and_trainers_by_configuration_alone(run, tmp_path):
    """RLOO on a classifier's logit and PPO on a function of the user's, on the finished grid's
    model.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tree = tmp_path / "tree"
    shutil.copytree(run, tree, ignore=shutil.ignore_patterns("activations"))
    (tree / "mine.py").write_text(
        "def brevity(prompts, completions):\n    return [-len(c) / 10 for c in completions]\n"
    )
    tokenizer = AutoTokenizer.from_pretrained(tree / "results" / "models" / "small-neox")
    torch.manual_seed(0)
    LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(tree / "judge")  # fmt: skip
    tokenizer.save_pretrained(tree / "judge")
    config = yaml.safe_load((tree / "grid.yaml").read_text())
    config["classifiers"] = {"judge": {"path": "judge", "positive": "LABEL_1"}}
    config["tasks"]["liked"] = {
        "method": "rloo",
        "corpus": "reviews",
        "reward": "classifier",
        "classifier": "judge",
    }
    config["tasks"]["brief"] = {
        "method": "ppo", "corpus": "reviews", "reward": "callable", "callable": "mine:brevity",
        "settings": {"ppo": {"lora": {"r": 2, "alpha": 4}}},
    }  # fmt: skip
    config["cells"] = [{"model": "small-neox", "task": task} for task in ("liked", "brief")]
    (tree / "others.yaml").write_text(yaml.safe_dump(config))
    snakemake(tree, "results/tables/fine_tuning.csv", "--configfile", "others.yaml", "--cores", "2")
    rewards = table(tree, "fine_tuning").set_index(["task", "quantity"])["estimate"]
    assert rewards["brief", "base_reward"] < 0
    assert abs(rewards["liked", "base_reward"]) < 10
    for task in ("liked", "brief"):
        curve = pd.read_parquet(
            tree / "results" / "small-neox" / task / "seed0" / "policy" / "training_curve.parquet"
        )
        assert list(curve["step"]) == [0, 1, 2]
    (tree / "mine.py").write_text(
        "def brevity(prompts, completions):\n    return [len(c) / 10 for c in completions]\n"
    )
    again = snakemake(tree, "results/tables/fine_tuning.csv", "--configfile", "others.yaml", "-n")
    assert re.search(r"^ppo +1$", again, re.M)
    assert not re.search(r"^group ", again, re.M)
