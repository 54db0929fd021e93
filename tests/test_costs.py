"""The estimate of costs counts what runs: it agrees with FLOPs and bytes that are counted in
another way.
"""

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file as save_torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import memory, startup
from lfp.costs import dictionaries, estimate
from lfp.costs.base import Cell, Cost, Shape
from lfp.costs.measured import UNNAMED, cell_of, measured, summary
from lfp.grid import ConfigurationError, Grid
from lfp.interventions.arms import ARMS, Arm
from lfp.running import benchmark
from lfp.sae import store
from lfp.sae.architectures import kind_of
from lfp.sae.architectures.standard import Standard
from lfp.sae.sources.files import USUAL_LATENTS
from lfp.sae.training import loop
from lfp.schema import SCHEMA_PATH
from lfp.settings import Autoencoder, Machine
from tests.conftest import make_model, run_job

RULES = Path(__file__).parent.parent / "rules"
LORA = {"r": 8, "alpha": 16}
MACHINE = Machine(tflops=1.0, utilisation=0.5, sampling_utilisation=0.1)


@pytest.fixture
def paper() -> dict:
    return yaml.safe_load((SCHEMA_PATH.parent / "paper.yaml").read_text())


@pytest.mark.parametrize("family", ["gpt_neox", "gemma"])  # one untied, one tied
def test_a_forward_pass_costs_two_flops_a_parameter_and_token(tokenizer, family):
    model = make_model(family, tokenizer)
    ids = torch.arange(5, 25)[None]
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied is (family != "gpt_neox")
    shape = Shape(model.num_parameters(), 3, 16, len(tokenizer), tied)
    # Biases and norms are no products; attention's scores are no parameters: at this length both
    # are small.
    assert counter.get_total_flops() / ids.numel() == pytest.approx(shape.forward, rel=0.1)


def test_an_autoencoder_pair_costs_what_is_counted():
    d, tokens = 16, 64
    x, counted = torch.randn(tokens, d), 0
    for width in (d, 2 * d):
        sae = Standard(d, width)
        with FlopCounterMode(display=False) as counter:
            sae.loss(x, Autoencoder(), torch.tensor(0.1))[0].backward()
        counted += counter.get_total_flops()
    # The gradient with respect to the input is not needed: five products of the six that an untied
    # layer would have.
    assert counted == pytest.approx(36 * d * d * tokens, rel=0.2)


def test_more_work_costs_more_and_every_stage_is_there(paper):
    grid = Grid(paper)
    rows = {row["address"]: row for row in grid.estimate_settings()["cells"]}

    def total(address: str) -> float:
        row = rows[address]
        costs = estimate.cell_costs(Cell.of_row(row, MACHINE))
        assert [cost.stage for cost in costs] == [
            "fine-tuning", "change", "divergence", "locus", "activations", "autoencoders",
            "evaluation", "choice_latents", "features", "explanations", "ablation",
        ]  # fmt: skip
        assert all(cost.exaflops > 0 and cost.gpu_hours > 0 for cost in costs)
        return sum(cost.gpu_hours for cost in costs)

    assert (
        total("gemma-2b-it/hh/seed0")
        > 10 * total("pythia-160m/hh/seed0")
        > 10 * total("pythia-70m/hh/seed0") / 3
    )


def test_variants_and_arms_cost_what_their_own_settings_say(paper, monkeypatch):
    def stages(variants: dict, **cell) -> dict[str, Cost]:
        entry = {"model": "pythia-70m", "task": "vader", "autoencoders": list(variants), **cell}
        grid = Grid(paper | {"autoencoders": variants, "cells": [entry]})
        [row] = grid.estimate_settings()["cells"]
        return {cost.stage: cost for cost in estimate.cell_costs(Cell.of_row(row, MACHINE))}

    plain = stages({"a": {"epochs": 1}})
    larger = stages({"a": {"sizes": [1, 16], "epochs": 50}})
    trained = [costs["autoencoders"].exaflops for costs in (plain, larger)]
    assert trained[1] == pytest.approx(trained[0] * 50 * 18 / 4)
    assert "evaluate_dictionaries" not in plain
    judged = {"settings": {"evaluation": {"probes": [1]}}}
    one, two = (stages({name: {} for name in names}, **judged) for names in ("a", "ab"))
    name = "evaluate_dictionaries"
    assert two[name].exaflops == pytest.approx(2 * one[name].exaflops)
    both = stages({"a": {"epochs": 1}, "b": {"epochs": 2, "reads": "base"}}, probed=["a", "b"])
    assert both["autoencoders"].exaflops == pytest.approx(3 * trained[0])
    for stage in ("activations", "features"):
        assert both[stage].exaflops == pytest.approx(2 * plain[stage].exaflops)
    # The arm that draws is known by its kind and not by its name.
    monkeypatch.setitem(ARMS, "none", ARMS["random"])
    monkeypatch.setitem(ARMS, "random", Arm())
    assert stages({"a": {}})["ablation"].exaflops == pytest.approx(plain["ablation"].exaflops)


def training(settings: Autoencoder, d: int, tokens: int, **more) -> Cost:
    """The estimate of training one layer's dictionaries of a variant."""
    kind = {"by_gradients": kind_of(settings).by_gradients}
    about = {
        "autoencoders": {"a": settings.as_json() | kind | more},
        "main": "a", "trained_layers": 1, "layers": 1,
    }  # fmt: skip
    read = {"activations": {"texts": tokens, "max_tokens": 1}}
    return dictionaries._training_cost(Cell(Shape(1e6, 1, d, 100), read, about, MACHINE))


def test_a_pursuit_costs_what_is_counted_in_one_pass(tmp_path):
    """It takes no gradient: rows of a known few directions join, and all others are coded once."""
    rng, d, tokens = np.random.default_rng(0), 16, 4000
    directions = rng.normal(size=(46, d))
    rows = directions[rng.integers(0, 46, tokens)] * rng.uniform(1, 2, (tokens, 1))
    settings = Autoencoder(
        architecture="itda", k=3, tau=0.01, sizes=(3,), batch_size=500, check_steps=4,
        normalise=False,
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        trained = loop.train(rows.astype(np.float32), [3 * d], settings, seed=0)
    assert [sae.d_sae for sae in trained.autoencoders] == [46, 46]
    cost = training(settings, d, tokens)
    assert 1 <= cost.exaflops * 1e18 / counter.get_total_flops() < 1.4
    # Epochs, which it does not read, cost nothing.
    assert training(settings, d, tokens, epochs=100) == cost
    for place, sae in enumerate(trained.autoencoders):
        store.save(sae, tmp_path / str(place), {"l1": None})
    saved = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert saved == pytest.approx(cost.disk_gb * 1e9, rel=0.1)


def test_a_dictionary_from_elsewhere_costs_no_training_and_has_its_files_size(tmp_path, paper):
    width, latents = 512, 40_000
    shapes = {"W_enc": (width, latents), "W_dec": (latents, width)}
    header = json.dumps({
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }).encode()  # fmt: skip
    path = tmp_path / "layer0" / "params.safetensors"
    path.parent.mkdir()
    path.write_bytes(len(header).to_bytes(8, "little") + header)

    def costs(**source) -> dict[str, Cost]:
        source |= {"format": "gemma_scope"}
        entry = {"architecture": "pretrained", "site": "mlp", "source": source}
        cell = {"model": "pythia-70m", "task": "vader", "autoencoders": ["scope"], "layers": [0]}
        [row] = Grid(
            paper | {"autoencoders": {"scope": entry}, "cells": [cell]}
        ).estimate_settings()["cells"]
        return {cost.stage: cost for cost in estimate.cell_costs(Cell.of_row(row, MACHINE))} | {
            "triples": row["about"]["triples"]
        }

    here = costs(path=str(tmp_path), files="layer{layer}")
    taken = here["autoencoders"]
    assert taken.exaflops == taken.gpu_hours == 0
    # As it is taken, and in the cell.
    assert taken.disk_gb == pytest.approx(2 * 2 * width * latents * 4 / 1e9)
    codes = 3 * here["triples"] * latents * 4 / 1e9
    assert here["features"].disk_gb > 2 * codes  # of the policy and another, with its random code
    hub = {"hub": "a/b", "revision": "0" * 40}
    for files, size in (("layer_{layer}_width_65k_l0_small", 2**16), ("l{layer}/width_1m", 2**20),
                        ("layer_{layer}", USUAL_LATENTS)):  # fmt: skip
        fetched = costs(files=files, **hub)["autoencoders"].disk_gb
        assert fetched == pytest.approx(taken.disk_gb * size / latents)


#: What a job of dictionaries does, without its files, and the peak of its memory at the end.
JOBS = {
    "itda": """
import numpy as np
from lfp.sae.training.loop import train
from lfp.settings import Autoencoder
x = np.random.default_rng(0).normal(size=(33_000, 256)).astype(np.float16)
settings = Autoencoder(architecture="itda", k=1, tau=0.9, sizes=(1, 8), other_seed=False)
train(x, [256, 2048], settings, seed=0)
""",
    "taken": """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from lfp.sae import store
from lfp.sae.sources.files import Dictionary
from lfp.sae.sources.weights import read
folder = Path(sys.argv[1])
store.save(read(Dictionary(folder / "params.safetensors", None), "gemma_scope"), folder / "o", {})
""",
}


@pytest.mark.parametrize("job", JOBS)
def test_memory_of_dictionaries_that_no_gradient_trains_is_within_a_fifth(job, tmp_path):
    width, latents = 256, 16_384
    if job == "itda":
        settings = Autoencoder(architecture="itda", k=1, tau=0.9, sizes=(1, 8), other_seed=False)
        cost = training(settings, width, 33_000)
    else:
        weights = {"w_enc": (width, latents), "w_dec": (latents, width), "b_dec": (width,)}
        weights |= dict.fromkeys(("b_enc", "threshold"), (latents,))
        tensors = {name: torch.randn(shape) for name, shape in weights.items()}
        save_torch(tensors, tmp_path / "params.safetensors")
        settings = Autoencoder(architecture="pretrained")
        cost = training(settings, width, 0, sizes=[latents // width], other_seed=False)
    code = JOBS[job] + "print(open('/proc/self/status').read())"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    peak = int(re.search(r"VmHWM:\s*(\d+)", ran.stdout)[1]) * 1024 / 1e9
    assert cost.cpu_memory_gb / peak == pytest.approx(1, abs=0.2)


def test_memory_is_within_a_fifth_of_what_was_measured():
    """The peaks of whole jobs on two shapes (python -m benchmarks.memory)."""
    rows = json.loads((memory.RESULTS / "memory.json").read_text())
    assert len(rows) == len(memory.SHAPES) * len(memory.STAGES)
    peaks: dict[str, dict[str, float]] = {}
    for row in rows:
        peaks.setdefault(row["shape"], {})[row["job"]] = row["measured_gb"]
    assert rows == memory.beside_estimates(peaks), "run: python -m benchmarks.memory --estimates"
    assert all(0.8 <= row["ratio"] <= 1.2 for row in rows), rows
    page = (SCHEMA_PATH.parents[1] / "docs" / "costs.md").read_text(encoding="utf-8")
    for of_job in zip(rows[: len(memory.STAGES)], rows[len(memory.STAGES) :], strict=True):
        figures = " | ".join(f"{row['measured_gb']:.2f} | {row['ratio']:.2f}" for row in of_job)
        assert f"| `{of_job[0]['job']}` | {figures} |" in page


def test_logits_and_adapters_count_in_memory(paper):
    """The trainers of TRL hold the logits of a batch, all else those of a bounded number."""
    gemma = {"parameters": 2.5e9, "n_layers": 18, "d_model": 2048, "vocab_size": 256_000}

    def needed(stage: str, **settings) -> Cost:
        cell = {"model": "gemma-2b-it", "task": "vader", "settings": settings}
        [row] = Grid(paper | {"cells": [cell]}).estimate_settings()["cells"]
        costs = estimate.cell_costs(Cell.of_row(row | {"shape": gemma}, MACHINE))
        return next(cost for cost in costs if cost.stage == stage)

    for stage, most in (("evaluation", 10), ("features", 10), ("ablation", 15)):
        assert needed(stage).gpu_memory_gb < most  # the logits of a batch alone were 34 GB
    full, adapted = needed("fine-tuning"), needed("fine-tuning", ppo={"lora": LORA})
    assert full.gpu_memory_gb == pytest.approx(20 * 2.5 + 4.5, abs=3)
    assert adapted.gpu_memory_gb < full.gpu_memory_gb / 2
    assert full.cpu_memory_gb > full.gpu_memory_gb


@pytest.mark.parametrize("method", ["best_of_n", "ranked"])
def test_ranked_completions_cost_what_is_written_and_what_is_read(paper, method):
    tasks = {"vader": {"method": method, "corpus": paper["tasks"]["vader"]["corpus"]}}

    def cost(**settings) -> Cost:
        cell = {"model": "pythia-70m", "task": "vader", "settings": settings}
        plan = Grid(paper | {"tasks": tasks, "cells": [cell], "settings": {}})
        [row] = plan.estimate_settings()["cells"]
        return estimate.cell_costs(Cell.of_row(row, MACHINE))[0]

    training = "dpo" if method == "ranked" else "ppo"
    plain, written = cost(), cost(ranking={"completions": 16})
    longer = cost(**{training: {"steps": 10_000}})
    assert plain.stage == "fine-tuning"
    shape = paper["models"]["pythia-70m"]["shape"]
    per_token = 2 * (shape["parameters"] - shape["d_model"] * shape["vocab_size"]) / 1e18
    assert written.exaflops - plain.exaflops == pytest.approx(8 * 2048 * 29 * per_token)
    assert longer.exaflops > plain.exaflops and longer.gpu_memory_gb == plain.gpu_memory_gb


def test_completions_that_cells_share_are_written_once(paper):
    corpus = paper["tasks"]["vader"]["corpus"]
    best = {"method": "best_of_n", "corpus": corpus}
    tasks = {"vader": best, "noise": best | {"reward": "noise"}}
    cells = [{"model": "pythia-70m", "task": task, "seeds": [0, 1]} for task in tasks]
    plan = Grid(paper | {"tasks": tasks, "cells": cells, "settings": {}})
    costs = [
        estimate.cell_costs(Cell.of_row(row, MACHINE))[0].exaflops
        for row in plan.estimate_settings()["cells"]
    ]
    shape = paper["models"]["pythia-70m"]["shape"]
    per_token = 2 * (shape["parameters"] - shape["d_model"] * shape["vocab_size"]) / 1e18
    assert costs[0] == costs[1] and costs[2] == costs[3]  # of either seed
    assert costs[0] - costs[2] == pytest.approx(8 * 2048 * 29 * per_token)


def test_a_model_without_a_shape_is_named(paper):
    del paper["models"]["pythia-70m"]["shape"]
    with pytest.raises(
        ConfigurationError,
        match=r"models.pythia-70m.shape: give parameters, d_model and vocab_size",
    ):
        Grid(paper).estimate_settings()


def test_the_target_prints_and_writes_the_table(tmp_path, paper):
    settings = Grid(paper).estimate_settings()
    result = run_job("estimate", settings, {}, {"estimate": "e.csv"}, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "gemma-2b-it/hh/seed0" in result.stdout
    assert "GPU-hours" in result.stdout
    assert (tmp_path / "e.csv").read_text().count("total") == len(paper["cells"])


def test_the_page_of_costs_has_the_estimate_of_today(paper):
    """The table of docs/costs.md, to two digits, or to the last one before the point."""
    plan = Grid(paper).estimate_settings()
    frame = estimate.grid_costs(plan["cells"], Machine(**plan["machine"]))
    totals = frame[frame["stage"] == "total"].drop(columns="stage").set_index("cell")
    page = (SCHEMA_PATH.parents[1] / "docs" / "costs.md").read_text(encoding="utf-8")
    for address, row in totals.iterrows():
        figures = [f"{value:.0f}" if value >= 99.5 else f"{value:.2g}" for value in row]
        line = f"| {address.removesuffix('/seed0')} | {' | '.join(figures)} |"
        assert line in page, f"docs/costs.md: expected the row {line}"


def test_a_record_belongs_to_a_cell():
    assert cell_of(Path("summary.tsv")) == ""
    assert cell_of(Path("models/m.tsv")) == ""
    assert cell_of(Path("m/base/reviews/activations/mlp.tsv")) == ""
    assert cell_of(Path("m/t/seed0/sae/tied/layer1.tsv")) == "m/t/seed0"
    assert cell_of(Path("exports/m/t/seed0/tied.tsv")) == "m/t/seed0"
    assert cell_of(Path("m/t/seed0/policy.tsv")) == "m/t/seed0"


def logged() -> Iterator[tuple[str, str]]:
    """(name of a rule, address of its log): a rule after another one has that one's."""
    for path in sorted(RULES.glob("*.smk")):
        rule = ""
        for line in path.read_text().splitlines():
            named = re.match(r"(?:use )?(?:rule|checkpoint) (\w+)", line)
            rule = named.group(1) if named else rule
            target = re.search(r'log_of\(f?"(.*)"\)', line)
            if target and line.startswith("        "):
                pattern = target.group(1).replace("{CELL}", "m/t/seed0").replace("{{", "{")
                pattern = pattern.replace("}}", "}").removeprefix("results/")
                yield rule, re.sub(r"{(\w+)}", r"\1", pattern)


def test_every_rule_has_a_log_by_whose_name_its_jobs_are_recorded():
    addresses = [address for _, address in logged()]
    assert len(addresses) > 30
    for address in addresses:
        record = benchmark.record_of(f"results/logs/{address}.log")
        assert record == Path(f"results/benchmarks/{address}.tsv")
        assert cell_of(Path(f"{address}.tsv")) in ("", "m/t/seed0", "model/task/seedseed")


@pytest.mark.parametrize("rule", sorted({rule for rule, _ in logged()} - {"verify"}))
def test_the_start_of_every_script_is_measured(rule):
    script = {"paired_activations": "activations", "base_activations": "activations"}.get(rule)
    path = startup.SCRIPTS / f"{script or rule.removeprefix('null_')}.py"
    imported = ast.parse(startup.imports_of(path))  # a statement within a function stands alone
    assert {"lfp.running"} <= {
        node.module for node in ast.walk(imported) if isinstance(node, ast.ImportFrom)
    }


def test_a_record_has_the_seconds_of_the_process_and_not_of_the_machine(tmp_path):
    """A clock in whole seconds, such as that of the start of the machine, is up to one off."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lfp.running import benchmark\n"
        "benchmark.write(Path('one.tsv'), 'ppo')\n"
        "time.sleep(0.5)\n"
        "benchmark.write(Path('two.tsv'), 'ppo')\n"
    )
    path, began = os.environ | {"PYTHONPATH": str(RULES.parent)}, time.monotonic()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=path)
    took = time.monotonic() - began
    one, two = measured(tmp_path)["seconds"]
    assert two - one == pytest.approx(0.5, abs=0.2)
    assert two < took + 0.02


def test_records_of_earlier_releases_count_without_a_stage(tmp_path):
    """Snakemake wrote them, with a dash where it had looked too late."""
    folder = tmp_path / "m" / "t" / "seed0"
    folder.mkdir(parents=True)
    header = "s\th:m:s\tmax_rss\tmax_vms\tio_in\tmean_load\tcpu_time\n"
    (folder / "policy.tsv").write_text(f"{header}2.5\t0:00:02\t-\t-\t-\t-\t2.0\n")
    [row] = measured(tmp_path).to_dict("records")
    assert (row["cell"], row["stage"], row["cpu_seconds"]) == ("m/t/seed0", UNNAMED, 2.0)


def test_a_job_records_its_resources_as_the_kernel_has_them(tmp_path):
    """Of a process that works for a tenth of a second, holds 200 MB and waits for a child."""
    code = (
        "import sys, subprocess, time\n"
        "from pathlib import Path\n"
        "from lfp.running import benchmark\n"
        "began, block = time.process_time(), bytearray(200 * 2**20)\n"
        "while time.process_time() < began + 0.1: pass\n"
        "child = 'import time\\nwhile time.process_time() < 0.2: pass'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
        "benchmark.write(Path('results/benchmarks/m/t/seed0/policy.tsv'), 'ppo')\n"
        "benchmark.write(Path('results/benchmarks/provenance.tsv'), 'provenance')\n"
    )
    path = os.environ | {"PYTHONPATH": str(RULES.parent)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=path)
    [row] = measured(tmp_path / "results" / "benchmarks").to_dict("records")
    place = (row["cell"], row["stage"], row["job"])
    assert place == ("m/t/seed0", "ppo", "m/t/seed0/policy")
    assert 0.3 <= row["cpu_seconds"] < 5
    assert row["seconds"] >= 0.3
    assert 200 < row["peak_mb"] < 600
    total = summary(pd.DataFrame([row, row | {"cell": "", "cpu_seconds": 1.0}])).iloc[-1]
    assert (total["cell"], total["jobs"]) == ("all", 2)
    assert total["cpu_seconds"] == pytest.approx(row["cpu_seconds"] + 1)


def test_steering_with_latents_costs_their_choice(paper):
    """Exact effects, pruning and the masks of the factorisation machine are passes of their own."""

    def cost(**steering) -> float:
        grid = paper | {"cells": [{"model": "pythia-70m", "task": "vader"}]}
        settings = paper["settings"] | {
            "steering": {"vectors": ["mean_shift"], **steering},
            "interventions": {"exact": 100, "masks": 1000, "texts": 50},
        }
        [row] = Grid(grid | {"settings": settings}).estimate_settings()["cells"]
        costs = estimate.cell_costs(Cell.of_row(row, MACHINE))
        return next(cost.exaflops for cost in costs if cost.stage == "steering")

    alone, pruned, learned = (
        cost(selectors=names) for names in ([], ["greedy"], ["greedy", "factorisation"])
    )
    assert pruned > alone
    assert learned - pruned > 2 * (pruned - alone)
