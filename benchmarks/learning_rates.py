"""The learning rate of each architecture of autoencoders, on known features and on a model.

    python -m benchmarks.learning_rates \\
        results/neox-tiny/vader/seed0/activations/mlp/layer2.safetensors

Every variant of :mod:`benchmarks.dictionaries` is trained with the shipped trainer on a layer's
activations at every rate, from two seeds, and judged by its FVU on activations that it has not
read. The FVU on known features is that which ``python -m benchmarks.dictionaries`` has written. A
default (``rate`` in :data:`lfp.sae.architectures.KINDS`) is the lowest rate that is nearly as good
as the best one in the mean over both: wider dictionaries ask for lower rates than these narrow ones
(arXiv:2406.04093). The figure and the numbers stand in ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks import dictionaries
from lfp.claims.origin import machine
from lfp.figures.style import grid, legend_of, save
from lfp.files.artefacts import open_tensor
from lfp.sae.metrics import Reconstruction
from lfp.sae.training.loop import train
from lfp.settings import Autoencoder

RESULTS = Path(__file__).parent / "results" / "learning_rates.json"
#: Last activations of a layer, which are kept for the FVU.
HELD_OUT = 4_000
#: How much larger than the best rate's FVU that of a default may be.
NEARLY_BEST = 1.1
#: Settings of the trainings: those of the default run's dictionaries, without an early end.
COMMON = {"tied": False, "batch_size": 256, "epochs": 12, "tolerance": None, "l0": 8.0}
#: Active latents of a token, of architectures that keep so many.
ACTIVE = 8


def on_layer(
    activations: np.ndarray, rates: Sequence[float] = dictionaries.RATES
) -> dict[str, dict[str, float]]:
    """The FVU of every variant by rate on held-out activations, as a mean over two seeds.

    `activations` are [token, width]; there are as many latents as they are wide.
    """
    read, held_out = activations[:-HELD_OUT], torch.from_numpy(activations[-HELD_OUT:]).float()
    fvu: dict[str, dict[str, float]] = {}
    for name, variant in dictionaries.VARIANTS.items():
        for rate in rates:
            settings = Autoencoder(
                **(COMMON | dict(variant) | {"learning_rate": rate, "k": ACTIVE})
            )
            began = time.process_time()
            values = []
            for sae in train(read, [read.shape[1]], settings, seed=0).autoencoders:
                reading = Reconstruction(sae)
                reading.add(held_out)
                values.append(reading.metrics()["fvu"])
            fvu.setdefault(name, {})[str(rate)] = float(np.mean(values))
            spent = time.process_time() - began
            print(f"{name} at {rate}: FVU {np.mean(values):.4f} in {spent:.0f} s", flush=True)
    return fvu


def on_known_features() -> dict[str, dict[str, float]]:
    """The FVU of every variant by rate on known features, as it was written."""
    rows = json.loads(dictionaries.RESULTS.read_text(encoding="utf-8"))["variants"]
    return {
        name: {rate: row["fvu"] for rate, row in rows[name]["by_rate"].items()}
        for name in dictionaries.VARIANTS
    }


def mean_fvu(
    of_data: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[float, float]]:
    """The geometric mean over all data of each variant's FVU, by rate."""
    return {
        name: {
            float(rate): float(np.exp(np.mean([np.log(fvu[name][rate]) for fvu in of_data])))
            for rate in by_rate
        }
        for name, by_rate in of_data[0].items()
    }


def default_rate(fvu: Mapping[float, float]) -> float:
    """The lowest rate whose `fvu` is at most :data:`NEARLY_BEST` times that of the best one."""
    return min(rate for rate, value in fvu.items() if value <= NEARLY_BEST * min(fvu.values()))


def draw(inputs: Sequence[str]) -> plt.Figure:
    """FVU by learning rate, a line for each variant and a panel for each kind of data."""
    result = json.loads(Path(inputs[0]).read_text(encoding="utf-8"))["fvu"]
    figure, axes = grid(len(result), width=4.2)
    for axis, (data, fvu) in zip(axes, result.items(), strict=True):
        for name, by_rate in fvu.items():
            axis.plot([float(rate) for rate in by_rate], list(by_rate.values()), "o-", label=name)
        axis.set(title=data, xlabel="learning rate", ylabel="FVU", xscale="log", yscale="log")
    legend_of(figure, axes)
    return figure


def main() -> None:
    """Measure, and write numbers and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("activations", help="layerN.safetensors of a run's activations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    layer = on_layer(np.array(open_tensor(Path(options.activations), "activations")))
    fvu = {"known features": on_known_features(), "a layer of an organism": layer}
    means = mean_fvu(list(fvu.values()))
    result = {
        "machine": machine(), "cpu_seconds": round(time.process_time()), "settings": COMMON,
        "fvu": fvu, "mean": means,
        "best": {name: min(of, key=of.get) for name, of in means.items()},
        "default": {name: default_rate(of) for name, of in means.items()},
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    save(draw, [str(RESULTS)], [str(RESULTS.with_suffix(".svg"))])
    print("; ".join(f"{name}: {rate}" for name, rate in result["default"].items()))


if __name__ == "__main__":
    main()
