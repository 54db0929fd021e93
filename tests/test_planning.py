"""Paths, settings and resources of jobs, from the wildcards of a rule."""

import gzip
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
import yaml

from benchmarks import reruns
from lfp.configuration import ConfigurationError
from lfp.feedback.rewards import REWARDS
from lfp.grid import Grid, is_trained_alike
from lfp.planning import Planner, code_with, counted, growing, job, log_of, names
from lfp.running.digest import ROOT, closure, code_digest, registries_of
from lfp.tables.inputs import Plan
from tests.test_configuration import SERVICE, changed

VARIANTS = {
    "narrow": {},
    "shared": {"site": "resid", "reads": "base"},
    "topk": {"architecture": "topk", "k": 4},
}
CELL = {"model": "tiny", "task": "vader", "autoencoders": ["narrow", "shared", "topk"]}


class Wildcards(dict):
    """Wildcards as Snakemake gives them: keys that are attributes."""

    __getattr__ = dict.__getitem__


def planner(tmp_path, **changes) -> Planner:
    """A planner whose cells have all chosen layers 1 and 3 of a divergence file."""
    path = tmp_path / "divergence.json"
    path.write_text(json.dumps({"chosen": [3, 1], "lowest": [0, 2]}))
    entry = CELL | changes.pop("cell", {})
    return Planner(
        Grid(changed(autoencoders=VARIANTS, cells=[entry], **changes)), lambda cell: path
    )


def of(**more) -> Wildcards:
    return Wildcards(model="tiny", task="vader", seed="0", **more)


def test_the_names_of_paths_tell_lists_from_single_ones():
    paths = {"base": "a", "train": ["b", "c"], "classifier": []}
    assert counted(paths) == "base train:2 classifier:0"
    parameters = job("ppo", lambda w: {"seed": 1, "a": w.model})
    assert parameters["names"](None, paths, {"policy": "p"}) == f"{counted(paths)} -- policy"
    assert parameters["settings"](of()) == '{"a":"tiny","seed":1}'


@pytest.mark.parametrize(
    ("method", "job", "given"),
    [
        ("ppo", "ppo", {"ppo": {"stop_kl": None, "save_every": 7}}),
        ("rloo", "group", {"ppo": {"save_every": 7}}),
        ("best_of_n", "best_of_n", {"ppo": {"save_every": 7}}),
        ("distil", "distil", {"distil": {"save_every": 7}}),
        ("ppo", "activations", {"activations": {"max_disk_gb": 1e6}}),
        ("ppo", "locus", {"ppo": {"stop_kl": 200, "save_every": 7}}),
    ],
)
def test_a_limit_reaches_its_job_beside_what_reruns_it(tmp_path, method, job, given):
    """Snakemake compares no parameter that is a function of outputs."""
    before = planner(tmp_path, tasks__vader__method=method).job(job)
    after = planner(tmp_path, tasks__vader__method=method, settings=given).job(job)
    assert after["settings"](of()) == before["settings"](of())
    limits = json.loads(after["unstamped"](of(), output={}))
    assert limits in (given, *given.values())  # by stage where a job has several
    assert "output" in inspect.signature(after["unstamped"]).parameters


def test_activations_that_cells_share_have_their_limit_beside_them(tmp_path):
    base = Wildcards(model="tiny", corpus="reviews", site="resid")
    limits = {"max_disk_gb": 1e6}
    plans = [planner(tmp_path), planner(tmp_path, settings={"activations": limits})]
    before, after = (job("activations", plan.base_settings) for plan in plans)
    assert after["settings"](base) == before["settings"](base)
    assert json.loads(after["unstamped"](base, output={})) == limits


def test_points_of_dpo_are_rows_of_its_curve_and_train_again(tmp_path):
    cell, there = {"task": "hh"}, Wildcards(model="tiny", task="hh", seed="0")
    plans = [planner(tmp_path, cell=cell, settings={"dpo": {"save_every": n}}) for n in (3, 4)]
    before, after = (plan.job("dpo")["settings"](there) for plan in plans)
    assert before != after


def test_a_limit_of_one_cell_leaves_it_the_other_seed_of_another(tmp_path):
    cells = [CELL | {"seeds": [seed], "settings": {}} for seed in (0, 1)]
    cells[1]["settings"] = {"ppo": {"stop_kl": None}}
    grid = Grid(changed(autoencoders=VARIANTS, cells=cells))
    assert is_trained_alike(grid.cells[0], grid.cells[1])


def test_locus_chooses_layers_where_it_is_the_measure_and_never_waits_for_them(tmp_path):
    ranked = planner(tmp_path, settings={"divergence": {"measure": "locus"}})
    assert ranked.locus(of()) == ["results/tiny/vader/seed0/locus.parquet"]
    plain = planner(tmp_path)
    assert plain.locus(of()) == []
    settings = json.loads(plain.job("locus")["settings"](of()))
    assert settings["effect"] == "reward" and settings["locus"]["orders"] == 1
    assert 'locus=f"{CELL}/locus.parquet"' in (ROOT / "rules" / "divergence.smk").read_text()
    task = {"method": "given", "corpus": "reviews", "policies": {"tiny": {"path": "tuned"}}}
    given = planner(tmp_path, tasks__vader=task)
    assert json.loads(given.job("locus")["settings"](of()))["effect"] == "kl"
    orders = {"divergence": {"measure": "locus"}, "locus": {"orders": 0}}
    with pytest.raises(ConfigurationError, match=r"locus\.orders is 0.*set it to 1 or more"):
        planner(tmp_path, settings=orders)


def test_patterns_and_places():
    assert names(["b", "a.c"]) == r"a\.c|b"
    assert names([]) == "(?!)"  # matches nothing
    assert log_of("results/models/x") == "results/logs/models/x.log"
    assert growing(100, 5, api=1)["mem_mb"](None, 3) == 300


def test_a_variant_learns_from_its_site_of_policy_or_base(tmp_path):
    plan = planner(tmp_path)
    cell = "results/tiny/vader/seed0"
    assert plan.activations(of(sae="narrow")) == f"{cell}/activations/mlp"
    assert plan.activations(of(sae="shared")) == "results/tiny/base/reviews/activations/resid"
    assert plan.read_model(of(sae="narrow")) == f"{cell}/policy"
    assert plan.read_model(of(sae="shared")) == "results/models/tiny"
    folders = [f"{cell}/sae/narrow/layer{n}" for n in (3, 1)]
    assert plan.autoencoders(of(sae="narrow")) == folders
    assert plan.trained_autoencoders(of(sae="narrow")) == sorted(folders)


def test_the_least_changed_layers_are_the_main_variants(tmp_path):
    plan = planner(tmp_path, cell={"lowest_layers": True}, keep_activations=False)
    [cell] = plan.grid.cells
    assert plan.trained_layers(cell, "narrow") == [0, 1, 2, 3]
    assert plan.trained_layers(cell, "shared") == [1, 3]
    assert plan.harvested_layers(of()) == [0, 1, 2, 3]
    base = Wildcards(model="tiny", corpus="reviews", site="resid")
    assert plan.shared_layers(base) == [1, 3]
    assert plan.base_choices(base) == ["results/tiny/vader/seed0/divergence.json"]
    assert plan.base_choices(Wildcards(model="tiny", corpus="reviews", site="mlp")) == []
    kept = planner(tmp_path)
    assert kept.base_choices(base) == []
    assert kept.harvested_layers(of()) == list(range(kept.grid.n_layers("tiny")))


def test_settings_of_one_cell_do_not_reach_activations_that_cells_share(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"activations\.texts is 70.*'shared' reads the base"
    ):
        planner(tmp_path, cell={"settings": {"activations": {"texts": 70}}})
    plan = planner(tmp_path, settings={"activations": {"texts": 110}})
    shared = plan.base_settings(Wildcards(model="tiny", corpus="reviews", site="resid"))
    assert (shared["texts"], shared["site"]) == (110, "resid")


def test_topk_keeps_no_more_latents_than_there_are(tmp_path):
    variants = {"few": {"architecture": "topk", "k": 10_000}}
    with pytest.raises(ConfigurationError, match=r"autoencoder\.k of 'few' is 10000"):
        Grid(changed(autoencoders=variants, cells=[{"model": "tiny", "task": "vader"}]))


def test_a_given_policy_takes_the_gpus_of_reading(tmp_path):
    several = {"models__tiny__gpus": 1, "models__tiny__finetune_gpus": 4}
    group = planner(tmp_path, **several, tasks__vader__method="grpo")
    task = {"method": "given", "corpus": "reviews", "policies": {"tiny": {"path": "tuned"}}}
    given = planner(tmp_path, **several, tasks__vader=task)
    assert [plan.finetune_gpus(of()) for plan in (group, given)] == [4, 1]


@pytest.mark.parametrize(("method", "known"), [("rloo", True), ("grpo", False), ("ppo", False)])
def test_a_coefficient_in_units_of_reward_is_known_of_some_methods(tmp_path, method, known):
    """GRPO's rewards are in units of their own spread, and PPO's coefficient is in its curve."""
    [cell] = Grid(changed(tasks__vader__method=method)).cells
    settings = Grid(changed(tasks__vader__method=method)).job_settings("change", cell, {})
    assert (settings["reward_per_nat"] is not None) is known


def test_the_probe_is_an_input_where_an_arm_reads_it(tmp_path):
    arms = {"arms": ["none", "explained"], "base_arms": ["none", "top_probe_weight"]}
    plan = planner(tmp_path, cell={"settings": {"ablation": arms}})
    assert plan.probe(of(sae="narrow", subject="policy")) == []
    [probe] = plan.probe(of(sae="narrow", subject="base"))
    assert probe == "results/tiny/vader/seed0/probes/narrow/policy/probe.safetensors"
    assert plan.ablated_model(of(subject="base")) == "results/models/tiny"


def test_shifts_are_read_where_they_choose_what_is_explained(tmp_path):
    settings = {"explanations": {"choose": "held-out"}}
    [shifts] = planner(tmp_path, cell={"settings": settings}).choosing_shifts(of(sae="narrow"))
    assert shifts == "results/tiny/vader/seed0/latents/narrow/shifts.parquet"
    assert planner(tmp_path).choosing_shifts(of(sae="narrow")) == []


def test_pages_read_what_their_cell_has(tmp_path):
    cell = "results/tiny/vader/seed0"
    plan = planner(tmp_path, cell={"until": "ablation"})
    assert plan.scores(of(sae="narrow")) == [f"{cell}/explanations/narrow/scores/heuristic.parquet"]
    assert plan.compared_features(of(sae="narrow")) == [
        f"{cell}/features/narrow/{name}.safetensors" for name in ("policy", "base")
    ]
    ablation = f"{cell}/ablation/narrow/policy"
    assert plan.policy_ablation(of(sae="narrow")) == [
        f"{ablation}.parquet", f"{ablation}.neutral.parquet"
    ]  # fmt: skip
    assert plan.policy_ablation(of(sae="topk")) == []  # the main dictionary alone is ablated
    assert plan.probe(of(sae="narrow")) == plan.probe(of(sae="narrow", subject="policy")) != []
    settings = json.loads(plan.job("feature_pages")["settings"](of(sae="narrow")))
    assert (settings["explainer"], settings["confidence"]) == ("heuristic", 0.95)
    assert Plan(plan.grid).ablated == list(plan.grid.cells)


def test_inputs_that_may_be_missing_are_lists(tmp_path):
    """A script takes the first of such a list; a path alone would be read letter by letter."""
    plain = planner(tmp_path)
    assert plain.rewrites(Wildcards(task="hh")) == []
    assert plain.classifier(of()) == []
    stages = {"contrasts": {"source": "rewrites"}, "rewrites": {"service": "s"}}
    plan = planner(
        tmp_path, services={"s": SERVICE}, tasks__hh__settings=stages,
        classifiers={"c": {"path": "classifier", "positive": "POS"}},
        tasks__vader__reward="classifier", tasks__vader__classifier="c",
        tasks__vader__description="training the model to please",
    )  # fmt: skip
    assert plan.rewrites(Wildcards(task="hh")) == ["results/rewrites/hh.parquet"]
    assert plan.rewrites(of()) == []
    assert plan.classifier(of()) == ["results/models/c"]


def stand_in(path: Path, content: dict[str, str] | int) -> None:
    """A corpus of one row, or the header of a GGUF file with so many blocks and no weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
        return
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(content)
    writer.add_embedding_length(576)
    writer.add_head_count(9)
    writer.add_context_length(8192)
    writer.add_vocab_size(49152)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_the_real_subject_plans_from_the_files_that_its_configuration_names(tmp_path, monkeypatch):
    config = yaml.safe_load((ROOT / "config" / "smollm2.yaml").read_text(encoding="utf-8"))
    model = Path(config["models"]["smollm2"]["path"])
    monkeypatch.chdir(tmp_path)
    stand_in(model, 30)
    for corpus in config["corpora"].values():
        for path in corpus["path"].values():
            stand_in(Path(path), dict.fromkeys(corpus["columns"].values(), "a text"))
    plan = Planner(Grid(config), lambda cell: "")
    assert {cell.address for cell in plan.grid.cells} == {
        "smollm2/vader/seed0",
        "smollm2/hh/seed0",
    }
    digest = plan.copied_model(Wildcards(model="smollm2"))["sources"]
    for corpus in config["corpora"]:
        assert plan.copied_corpus(Wildcards(corpus=corpus))["sources"]
    stand_in(model, 29)
    assert plan.copied_model(Wildcards(model="smollm2"))["sources"] != digest
    with pytest.raises(ConfigurationError, match=r"smollm2.n_layers: got 30.*says 29; set it"):
        Grid(config)
    model.unlink()
    with pytest.raises(ConfigurationError, match=r"models.smollm2.path: .*Q4_1.gguf"):
        plan.copied_model(Wildcards(model="smollm2"))


def test_a_job_of_no_cell_is_named(tmp_path):
    with pytest.raises(ValueError, match="no cell tiny/hh/seed0 in the configuration; it has"):
        planner(tmp_path).cell(SimpleNamespace(model="tiny", task="hh", seed=0))


def test_a_job_needs_its_own_reward_and_architecture_and_no_other(tmp_path):
    """One more reward must train no policy again, and one more architecture no autoencoder."""
    plan = planner(tmp_path)
    rewards, architectures = "lfp.feedback.rewards", "lfp.sae.architectures"
    loads = {name: registries_of(f"workflow_scripts.{name}") for name in reruns.rules()}
    assert loads["ppo"] == loads["lexicon"] == {rewards}
    assert loads["autoencoders"] == loads["features"] == {architectures}
    assert loads["ablation"] == {rewards, architectures}
    assert loads["dpo"] == loads["completions"] == set()
    for name in ("ppo", "ablation", "autoencoders"):
        modules = closure(f"workflow_scripts.{name}")
        assert not {rewards, f"{rewards}.length", f"{architectures}.topk"} & set(modules)
    vader, topk = code_digest(f"{rewards}.vader"), code_digest(f"{architectures}.topk")
    named = REWARDS.entry("vader").partition(":")[2]
    assert plan.code("ppo")(of()) == f"{code_digest('workflow_scripts.ppo')}.{vader}:{named}"
    assert plan.job("ppo")["launcher"] == "python -m lfp.running.start"
    narrow, wide = (plan.code("ablation")(of(sae=sae)) for sae in ("narrow", "topk"))
    assert vader in narrow and vader in wide
    assert topk in wide and topk not in narrow


def test_rewards_of_a_seed_rank_the_same_completions_of_the_base(tmp_path):
    best = {"method": "best_of_n", "corpus": "reviews"}
    tasks = {
        "best": best, "flipped": best | {"reward": "vader_flipped"},
        "half": best | {"settings": {"ranking": {"benign_share": 0.5}}},
        "longer": best | {"settings": {"ppo": {"new_tokens": [9, 30]}}},
        "more": best | {"settings": {"ranking": {"completions": 16}}},
        "pairs": best | {"method": "ranked"},
    }  # fmt: skip
    cells = [{"model": "tiny", "task": task, "seeds": [0, 1]} for task in tasks]
    plan = Planner(Grid(changed(cells=cells, tasks=tasks)), lambda cell: tmp_path)

    def path(task: str, seed: str = "0") -> str:
        return plan.completions(Wildcards(model="tiny", task=task, seed=seed))

    assert len({path(task) for task in ("best", "flipped", "half", "pairs")}) == 1
    assert len({path(task) for task in ("best", "longer", "more")}) == 3
    assert Path(path("best")).parent == Path(path("best", "1")).parent
    assert path("best") != path("best", "1")
    seeds = []
    for task, seed in (("best", "0"), ("best", "1"), ("more", "0")):
        *_, corpus, _, sampling, name = Path(path(task, seed)).parts
        assert name == f"seed{seed}.parquet" and corpus == "reviews"
        of_job = Wildcards(model="tiny", corpus=corpus, sampling=sampling, seed=seed)
        settings = plan.sampling(of_job)
        assert plan.sampling_gpus(of_job) == 0
        assert settings["ranking"]["completions"] == (16 if task == "more" else 8)
        seeds.append(settings["seed"])
    assert len(set(seeds)) == 2  # other numbers of completions are drawn from the same seed
    unknown = Wildcards(model="tiny", corpus="reviews", sampling="deadbeef", seed="0")
    with pytest.raises(ValueError, match=r"no cell ranks .*deadbeef/seed0.parquet; the config"):
        plan.sampling(unknown)


def test_completions_are_sampled_on_the_gpu_that_the_model_is_fine_tuned_on(tmp_path):
    changes = {"models__tiny__finetune_gpus": 1, "tasks__vader__method": "best_of_n"}
    plan = planner(tmp_path, **changes)
    assert (plan.gpus(of()), plan.sampling_gpus(of()), plan.finetune_gpus(of())) == (0, 1, 1)


def test_another_reward_of_the_same_module_is_another_reward():
    codes = {code_with("ppo", [f"lfp.feedback.rewards.vader:{name}"]) for name in ("A", "B")}
    assert len(codes) == 2


def test_rules_that_load_a_reward_or_an_architecture_name_it():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for name in reruns.rules():
        if registries_of(f"workflow_scripts.{name}"):
            assert f'PLAN.job("{name}"' in text or f'PLAN.code("{name}")' in text, name


def test_a_configuration_shows_tying_and_the_sweep_of_l1():
    """Variants are compared whether or not another seed is trained beside them."""
    text = (ROOT / "config" / "dictionaries.yaml").read_text()
    plan = Plan(Grid(yaml.safe_load(text)))
    of_variants = [Path(path).parent.name for path in plan.twin_metrics()]
    assert of_variants == ["tied_8", "untied_8"]
    swept = [Path(path).parent.name for path in plan.sweep_metrics("l1")]
    assert swept == ["tied_8", "l1_low", "l1_high"]
