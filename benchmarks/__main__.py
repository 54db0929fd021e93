"""All side-by-side measurements: ``make bench``. Writes results/{machine}.json and
results/{machine}.md.

python -m benchmarks --peers PYTHON --trl-classic FOLDER --trl FOLDER [--only PATTERN] [stage ...]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side import Contender, take_turns

RESULTS = Path(__file__).parent / "results"
SIZES = ((512, 512), (512, 1024), (768, 1536), (2048, 4096))
DENSITIES = (0.05, 0.2)
#: Widths, latents and active latents of a token, of architectures that choose their latents.
CHOSEN = (
    (512, 512, 16), (512, 1024, 16), (512, 1024, 64), (768, 768, 32), (768, 1536, 32),
    (2048, 2048, 64), (2048, 4096, 64),
)  # fmt: skip
TINY = {"n_layers": 4, "d_model": 128, "n_heads": 4}
PYTHIA_70M = {"n_layers": 6, "d_model": 512, "n_heads": 8}
Table = tuple[str, list[Contender]]


def make_model(folder: Path, shape: dict[str, int], vocabulary: int) -> str:
    """A GPT-NeoX with random weights and a byte-level tokenizer, on disk; `vocabulary` may exceed
    the tokenizer's.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from lfp.models.loading import save_model
    from lfp.organisms.configs import organism_config
    from lfp.organisms.tokenizers import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["some words to build pieces of, and no more than that"], 300)
    # Pieces beyond the trained ones, so that every id of the prompts and of the samples decodes to
    # text.
    tokenizer.add_tokens(
        [f"{a}{b}{c}" for a in "bcdfghjk" for b in "aeiou" for c in "lmnprstvwxz"][
            : 800 - len(tokenizer)
        ]
    )
    ids = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    config = organism_config("gpt_neox", vocabulary, *ids, **shape, d_mlp=4 * shape["d_model"])
    model = AutoModelForCausalLM.from_config(config)
    save_model(model, tokenizer, folder)
    return str(folder)


class Bench:
    """The tables of contenders, each to be run in turns."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder

    def ours(
        self, name: str, module: str, case: dict[str, Any], precision: str = "float32"
    ) -> Contender:
        """A contender of this repository."""
        return Contender(name, module, case, sys.executable, precision=precision)

    def peer(
        self,
        name: str,
        module: str,
        case: dict[str, Any],
        precision: str = "float32",
        path: str = "",
    ) -> Contender:
        """A contender of another library, in its environment."""
        return Contender(name, module, case, self.options.peers, path, True, precision)

    def limits(self, **case: Any) -> list[Contender]:
        """Matrix products and copies, measured in the same rounds."""
        kinds = {"float32": "float32", "bfloat16": "bfloat16", "copy": ""}
        return [
            self.ours(f"limit: {k}", "machine", case | {"kind": k}, precision=p)
            for k, p in kinds.items()
        ]

    def autoencoder(self) -> Iterator[Table]:
        """Training steps of 4,096 tokens."""
        for d, m in SIZES:
            case = {"n": 4096, "d": d, "m": m}
            rows = [
                self.peer("SAELens", "saelens", case | {"precision": "float32"}),
                self.peer("dictionary_learning", "dictionary_learning", case),
                self.peer(
                    "SAELens, autocast", "saelens", case | {"precision": "bfloat16"}, "bfloat16"
                ),
            ]
            for density in DENSITIES:
                own = case | {"density": density}
                rows += [
                    self.ours(
                        f"ours, {density:.0%} active",
                        "autoencoder",
                        own | {"precision": p, "tied": True},
                        p,
                    )
                    for p in ("float32", "bfloat16")
                ]
            untied = case | {"density": 0.05, "precision": "float32", "tied": False}
            rows.append(self.ours("ours, untied, 5% active", "autoencoder", untied))
            yield f"autoencoder step, d {d}, {m} features, 4096 tokens", rows + self.limits()

    def chosen(self) -> Iterator[Table]:
        """Training steps of 4,096 tokens, of architectures that choose few latents; five a turn,
        since ours look at the batch in every fifth, or two, of which one looks.
        """
        for d, m, k in CHOSEN:
            steps = 5 if d < 1024 else 2
            for kind in ("topk", "batchtopk", "jumprelu"):
                case = {"n": 4096, "d": d, "m": m, "k": k, "architecture": kind, "steps": steps}
                rows = [
                    self.peer("SAELens", "saelens", case | {"precision": "float32"}),
                    self.peer("dictionary_learning", "dictionary_learning", case),
                    self.ours("ours", "chosen", case | {"tied": True}),
                    self.ours("ours, untied", "chosen", case | {"tied": False}),
                ]
                title = f"{steps} {kind} steps, d {d}, {m} latents, k {k}, 4096 tokens"
                yield title, rows + self.limits(steps=steps)

    def gpu(self) -> Iterator[Table]:
        """Training steps of 4,096 tokens on a GPU, a hundred a turn; no table where
        there is none.
        """
        import torch

        if not torch.cuda.is_available():
            print("no GPU: no table of one", flush=True)
            return
        for d, m in SIZES:
            case = {"n": 4096, "d": d, "m": m, "device": "cuda", "steps": 100}
            rows = []
            for precision, name in (("float32", "SAELens"), ("bfloat16", "SAELens, autocast")):
                own = case | {"precision": precision, "density": 0.05}
                rows.append(self.peer(name, "saelens", own, precision))
                rows.append(self.ours("ours", "autoencoder", own | {"tied": True}, precision))
                rows.append(
                    self.ours("ours, untied", "autoencoder", own | {"tied": False}, precision)
                )
            title = (
                f"100 autoencoder steps, d {d}, {m} features, 4096 tokens,"
                f" {torch.cuda.get_device_name()}"
            )
            yield title, rows + self.limits(device="cuda", steps=100)

    def harvest(self) -> Iterator[Table]:
        """MLP outputs of a Pythia-70m shape."""
        model = make_model(self.folder / "harvest", PYTHIA_70M, 50_304)
        ragged = np.random.default_rng(0).integers(20, 129, 32).tolist()
        for lengths, name in (
            ([128] * 32, "32 texts of 128 tokens"),
            (ragged, "32 texts of 20 to 128 tokens"),
        ):
            for layers in ([4], [0, 1, 2, 3, 4]):
                case = {"model": model, "lengths": lengths, "batch_size": 8}
                rows = []
                for p in ("float32", "bfloat16"):
                    own = case | {"precision": p, "layers": layers}
                    rows.append(self.ours("ours", "harvest", own, p))
                    if name.endswith("128 tokens") and lengths[0] == lengths[1]:
                        rows.append(self.peer("SAELens", "saelens_harvest", own, p))
                yield f"harvest of layers {layers}, Pythia-70m shape, {name}", rows + self.limits()

    def ppo(self) -> Iterator[Table]:
        """One PPO update."""
        tiny = {"batch": 64, "mini_batch": 16, "epochs": 4, "prompt": 8, "response": 20}
        small = tiny | {"batch": 16, "mini_batch": 4}
        shapes = (
            ("tiny (4 layers, d 128)", TINY, 800, tiny),
            ("Pythia-70m shape, 16 prompts", PYTHIA_70M, 50_304, small),
        )
        for i, (name, shape, vocabulary, case) in enumerate(shapes):
            case = case | {"model": make_model(self.folder / f"ppo{i}", shape, vocabulary)}
            rows = [
                self.ours("ours", "ppo", case),
                self.peer("TRL 1.12", "trl_ppo", case, path=self.options.trl),
                self.peer("TRL 0.11.4", "trl_classic", case, path=self.options.trl_classic),
            ]
            yield f"PPO update, {name}", rows

    def features(self) -> Iterator[Table]:
        """Contrast triples, with and without a shared prefix."""
        for name, shape, vocabulary in (
            ("tiny", TINY, 800),
            ("Pythia-70m shape", PYTHIA_70M, 50_304),
        ):
            model = make_model(self.folder / f"features-{name.split()[0]}", shape, vocabulary)
            for words, element in (("a word", 2), ("an answer", 40)):
                case = {
                    "model": model,
                    "triples": 24,
                    "prompt": 40,
                    "element": element,
                    "batch_size": 24,
                }
                rows = [
                    Contender(
                        "every element with its prompt",
                        "features",
                        case | {"shared": False},
                        sys.executable,
                        peer=True,
                    ),
                    self.ours("the prompt once", "features", case | {"shared": True}),
                ]
                yield f"features of 24 triples that end in {words}, {name}", rows

    def ablation(self) -> Iterator[Table]:
        """Sets of ablated features, together and one by one."""
        for name, shape, vocabulary in (
            ("tiny", TINY, 800),
            ("Pythia-70m shape", PYTHIA_70M, 50_304),
        ):
            model = make_model(self.folder / f"ablation-{name.split()[0]}", shape, vocabulary)
            case = {"model": model, "prompts": 8, "prompt": 20, "response": 12, "sets": 6}
            rows = [
                Contender(
                    "one set after the other",
                    "ablation",
                    case | {"batch_size": 8},
                    sys.executable,
                    peer=True,
                ),
                Contender(
                    "the released hook, writing",
                    "ablation_released",
                    case | {"batch_size": 8, "writes": True},
                    sys.executable,
                    peer=True,
                ),
                Contender(
                    "the released hook, reading the prompts alone",
                    "ablation_released",
                    case | {"batch_size": 8, "writes": False},
                    sys.executable,
                ),
                self.ours("all sets in one batch", "ablation", case | {"batch_size": 48}),
            ]
            yield f"completions of 8 prompts under 6 sets, {name}", rows


def machine_name() -> str:
    """The processor's name and the number of cores, as a file name."""
    import os

    model = (
        re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        if sys.platform == "linux"
        else None
    )
    name = model.group(1) if model else platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {os.cpu_count()} cores".lower()).strip("-")


def markdown(tables: dict[str, list[dict[str, Any]]]) -> str:
    """The tables as Markdown; rates are of useful work."""
    lines = []
    for title, rows in tables.items():
        clock = {"cpu": "CPU", "wall": "wall"}[rows[0].get("clock", "cpu")]
        lines += [
            f"### {title}",
            "",
            f"| | precision | {clock} ms (fastest to slowest) | x fastest peer | % of limit | peak"
            f" MB |",
        ]
        lines += ["|---|---|---|---|---|---|"]
        limits = {
            r["precision"]: r["work"] / r["seconds"] for r in rows if r["name"].startswith("limit")
        }
        for row in rows:
            if row["name"].startswith("limit"):
                continue
            rate = row["work"] / row["seconds"]
            share = f"{rate / limits[row['precision']]:.0%}" if row["precision"] in limits else ""
            peak = f"{row['peak_mb']:.0f}" if row["peak_mb"] else ""
            ratio = f"**{row['times_peer']:.2f}**" if row["times_peer"] else ""
            spread = (
                f"{1e3 * row['seconds']:.1f} ({1e3 * row['fastest']:.1f} to"
                f" {1e3 * row['slowest']:.1f})"
            )
            lines.append(
                f"| {row['name']} | {row['precision']} | {spread} | {ratio} | {share} | {peak} |"
            )
        shown = [
            f"{r['name']} {r['work'] / r['seconds']:.0f}"
            f" {'GB/s' if 'copy' in r['name'] else 'GFLOP/s'}"
            for r in rows
            if r["name"].startswith("limit")
        ]
        lines += ["", "; ".join(shown), ""] if shown else [""]
    return "\n".join(lines)


def main() -> None:
    """Run the stages asked for, print their tables as they come, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="python of the peers' environment")
    parser.add_argument("--trl", required=True, help="folder with TRL 1.12")
    parser.add_argument("--trl-classic", required=True, help="folder with TRL 0.11")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="a pattern of the titles of tables to measure")
    parser.add_argument(
        "stages",
        nargs="*",
        default=["autoencoder", "chosen", "gpu", "harvest", "ppo", "features", "ablation"],
    )
    options = parser.parse_args()
    path = RESULTS / f"{machine_name()}.json"
    kept = json.loads(path.read_text())["tables"] if path.exists() else {}
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for stage in options.stages:
            for title, contenders in getattr(bench, stage)():
                if not re.search(options.only, title):
                    continue
                kept[title] = take_turns(contenders, options.rounds)
                print(markdown({title: kept[title]}), flush=True)
                # After every table, so that a run that is stopped has not measured in vain.
                found = json.dumps({"machine": machine_name(), "tables": kept}, indent=1) + "\n"
                path.write_text(found, encoding="utf-8")
                path.with_suffix(".md").write_text(markdown(kept), encoding="utf-8")
    print(f"{time.time() - began:.0f} seconds; written to {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
