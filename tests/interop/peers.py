"""Dictionaries in the layouts of SAELens, Gemma Scope and dictionary_learning, trained and written
by these packages themselves, and what they compute: run in the environment of `make test-interop`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from dictionary_learning import trainers
from dictionary_learning.dictionary import AutoEncoder, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.matryoshka_batch_top_k import (
    MatryoshkaBatchTopKSAE,
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.training import trainSAE
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.numpy import save_file

WIDTH, LATENTS, ROWS, STEPS, K = 32, 48, 256, 60, 4
#: The layer that all of them read, at the site resid.
LAYER = 1
#: Training settings of SAELens by the name of a case: its architecture, and what differs.
SAELENS = {
    "standard": ("standard", {"l1_coefficient": 1e-3}),
    "centred": ("standard", {"l1_coefficient": 1e-3, "apply_b_dec_to_input": True}),
    "topk": ("topk", {"k": K}),
    "topk_of_norms": ("topk", {"k": K, "rescale_acts_by_decoder_norm": True}),
    "batchtopk": ("batchtopk", {"k": K}),
    "matryoshka": ("matryoshka_batchtopk", {"k": K, "matryoshka_widths": [12, 24, LATENTS]}),
    "jumprelu": ("jumprelu", {"l0_coefficient": 1e-3}),
    "gated": ("gated", {"l1_coefficient": 1e-3}),
    "pursuit": ("matching_pursuit", {"max_iterations": K}),
}
#: Trainers of dictionary_learning by the name of a case, with their classes and what differs.
LEARNED = {
    "standard": (trainers.StandardTrainer, AutoEncoder, {"l1_penalty": 0.03}),
    "april": (StandardTrainerAprilUpdate, AutoEncoder, {"l1_penalty": 0.03}),
    "annealed": (trainers.PAnnealTrainer, AutoEncoder, {"anneal_start": 30, "p_end": 0.5}),
    "topk": (trainers.TopKTrainer, AutoEncoderTopK, {"k": K}),
    "batchtopk": (trainers.BatchTopKTrainer, trainers.BatchTopKSAE, {"k": K}),
    "matryoshka": (
        MatryoshkaBatchTopKTrainer, MatryoshkaBatchTopKSAE,
        {"k": K, "group_fractions": [0.25, 0.25, 0.5]},
    ),
    "jumprelu": (trainers.JumpReluTrainer, JumpReluAutoEncoder, {"target_l0": 4.0}),
    "gated": (trainers.GatedSAETrainer, GatedAutoEncoder, {"l1_penalty": 0.03}),
}  # fmt: skip


def batches(seed: int = 0) -> Iterator[torch.Tensor]:
    """Batches of sums of few of as many directions as there are latents, about a mean."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(LATENTS, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    while True:
        code = rng.uniform(1, 3, (ROWS, LATENTS)) * (rng.random((ROWS, LATENTS)) < K / LATENTS)
        yield torch.from_numpy((code @ directions + 0.2).astype(np.float32))


def computed(sae: Any, norms: torch.Tensor, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The code of `x`, every latent times the norm of its direction, and the reconstruction."""
    with torch.no_grad():
        code = sae.encode(x)
        return {"code": (code * norms).numpy(), "output": sae.decode(code).numpy()}


def of_saelens(folder: Path, x: torch.Tensor) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Train SAELens's autoencoders and let it save them; each with what the saved one computes."""
    for name, (architecture, more) in SAELENS.items():
        torch.manual_seed(0)
        cls, config = get_sae_training_class(architecture)
        place = SAEMetadata(hook_name=f"blocks.{LAYER}.hook_resid_post")
        sae = cls(config(d_in=WIDTH, d_sae=LATENTS, metadata=place, **more))
        settings = SAETrainerConfig(
            total_training_samples=ROWS * STEPS, train_batch_size_samples=ROWS, device="cpu",
            autocast=False, lr=1e-2, lr_end=1e-2,
        )  # fmt: skip
        trainer = SAETrainer(
            sae=sae, data_provider=iter(()), evaluator=None,
            save_checkpoint_fn=lambda **_: None, cfg=settings,
        )  # fmt: skip
        for _, batch in zip(range(STEPS), batches(), strict=False):
            trainer.step(batch)
        target = folder / name / f"layer_{LAYER}"
        sae.save_inference_model(target)
        saved = SAE.load_from_disk(str(target))
        yield name, computed(saved, saved.W_dec.norm(dim=1), x)


def of_gemma_scope(
    folder: Path, weights: dict[str, torch.Tensor], x: torch.Tensor
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Write JumpReLU weights as Gemma Scope's two releases have them, and read them by SAELens."""
    arrays = {name: value.numpy() for name, value in weights.items()}
    arrays["W_dec"] = arrays["W_dec"] * np.linspace(0.5, 2, LATENTS, dtype=np.float32)[:, None]
    first = folder / "first" / f"layer_{LAYER}" / "width_16k" / "average_l0_71"
    second = folder / "second" / "resid_post" / f"layer_{LAYER}_width_16k_l0_small"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    np.savez(first / "params.npz", **arrays)
    save_file({n.lower(): value for n, value in arrays.items()}, second / "params.safetensors")
    about = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-it"}
    (second / "config.json").write_text(json.dumps(about))
    size = {"d_in": WIDTH, "d_sae": LATENTS}
    shapes = {name.lower(): list(value.shape) for name, value in arrays.items()}

    def fetched(repo_id: str, filename: str, subfolder: str = "", **_: object) -> str:
        return str(folder / repo_id.split("/")[1].split("-res")[0] / subfolder / filename)

    with (
        mock.patch.object(loaders, "hf_hub_download", fetched),
        mock.patch.object(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes),
    ):
        read = {
            "first": loaders.gemma_2_sae_huggingface_loader(
                "a/first-res-2b-it", str(first.relative_to(folder / "first")), cfg_overrides=size
            ),
            "second": loaders.gemma_3_sae_huggingface_loader(
                "a/second", str(second.relative_to(folder / "second"))
            ),
        }
    for name, (config, state, _) in read.items():
        cls, settings = get_sae_class("jumprelu")
        sae = cls(settings.from_dict(loaders.handle_config_defaulting(config)))
        sae.load_state_dict(state)
        yield name, computed(sae, sae.W_dec.norm(dim=1), x)


def of_dictionary_learning(
    folder: Path, x: torch.Tensor
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Train dictionary_learning's dictionaries and let it save them: ``ae.pt``, a pickle."""
    for name, (trainer, cls, more) in LEARNED.items():
        warm_up = {"warmup_steps": 5}
        if "k" in more:
            warm_up |= {"threshold_start_step": 10}
        else:
            warm_up |= {"sparsity_warmup_steps": 5}
        torch.manual_seed(0)
        place = {"layer": LAYER, "lm_name": "small", "submodule_name": f"resid_post_layer_{LAYER}"}
        config = {
            "trainer": trainer, "steps": STEPS, "activation_dim": WIDTH, "dict_size": LATENTS,
            "device": "cpu", "seed": 0, **place, **warm_up, **more,
        }  # fmt: skip
        target = folder / name / f"layer_{LAYER}"
        trainSAE(
            batches(), [config], steps=STEPS, save_dir=str(target), device="cpu",
            normalize_activations=name == "batchtopk",
        )  # fmt: skip
        options = {"normalize_decoder": False} if cls is AutoEncoder else {}
        sae = cls.from_pretrained(str(target / "trainer_0" / "ae.pt"), **options)
        decoder = sae.W_dec.T if hasattr(sae, "W_dec") else sae.decoder.weight
        yield name, computed(sae, decoder.detach().norm(dim=0), x)


def main(folder: Path) -> None:
    """Write dictionaries of all three layouts, and what their own packages compute with them."""
    torch.set_num_threads(1)
    x = next(batches(seed=1))
    expected = {"x": x.numpy()}
    for name, values in of_saelens(folder / "saelens", x):
        expected |= {f"saelens.{name}.{what}": value for what, value in values.items()}
    jumprelu = SAE.load_from_disk(str(folder / "saelens" / "jumprelu" / f"layer_{LAYER}"))
    weights = {name: value.detach() for name, value in jumprelu.state_dict().items()}
    for name, values in of_gemma_scope(folder / "gemma_scope", weights, x):
        expected |= {f"gemma_scope.{name}.{what}": value for what, value in values.items()}
    for name, values in of_dictionary_learning(folder / "dictionary_learning", x):
        expected |= {f"dictionary_learning.{name}.{what}": value for what, value in values.items()}
    save_file(
        {k: np.ascontiguousarray(v) for k, v in expected.items()}, folder / "expected.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
