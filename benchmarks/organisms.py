"""Is an organism a fair subject? Cross-entropy, the price of zeroing the MLP or the attention of
each layer, and how well a ridge reads valences off words whose contexts and selves it has not seen.

python -m benchmarks.organisms MODEL [KEY=VALUE ...]

MODEL is one of config/config.yaml, whose corpora it learns; keys are those of an `organism`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.stats import kendalltau

from lfp.feedback.lexica import vader_lexicon
from lfp.models.architectures import architecture, blocks
from lfp.models.losses import text_losses
from lfp.models.tokens import pad_batch
from lfp.organisms.generate import OPTIONS, generate_corpus
from lfp.organisms.pretraining import led_tokens, packed_tokens, pretrain
from lfp.organisms.tokenizers import train_tokenizer
from lfp.probing.contrasts import word_triples
from lfp.probing.data import SIGNS, ProbeData, word_rows
from lfp.probing.features import encode_elements
from lfp.probing.fitting import out_of_fold
from lfp.settings import Contrasts, Corpus, Organism, Probes
from lfp.texts.corpora import documents

CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"
#: Held-out documents of each corpus, and contexts of every word.
DOCUMENTS, CONTEXTS = 120, 3


def frames_of(name: str, entry: dict) -> dict:
    """The splits of a generated corpus of the configuration."""
    corpus = Corpus.of(entry)
    options = {key: getattr(corpus, key) for key in OPTIONS[corpus.organism]}
    return generate_corpus(corpus.organism, corpus.splits, corpus.seed, options)[0]


def rises(model, tokenizer, held_out: list[str]) -> dict[str, list[float]]:
    """Rises of the cross-entropy, nats per token, where a part of a layer is set to 0, by part."""

    sequences = [ids[:65] for ids in led_tokens(tokenizer, held_out)]

    def loss() -> float:
        nats, tokens = text_losses(model, sequences, tokenizer.pad_token_id, 32)
        return nats.sum() / tokens.sum()

    whole, family, result = loss(), architecture(model), {}
    for part in (family.mlp, family.attention_output):
        result[part] = []
        for block in blocks(model):
            hook = block.get_submodule(part).register_forward_hook(lambda m, i, output: output * 0)
            result[part].append(loss() - whole)
            hook.remove()
    return {"all": [whole], **result}


@torch.no_grad()
def valences(model, tokenizer, texts: list[str]) -> dict[str, float]:
    """Tau-b within each sign, and the share of words whose sign is right, of a ridge on the valence
    by the MLPs behind the first at held-out words in held-out contexts.
    """
    triples = word_triples(texts, vader_lexicon(), Contrasts(contexts_per_word=CONTEXTS))
    read: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(blocks(model)):
        block.get_submodule(architecture(model).mlp).register_forward_hook(
            lambda m, i, output, layer=layer: read.update({layer: output})
        )
    features = []
    for element in SIGNS:
        (sequences,), (targets,) = encode_elements(tokenizer, triples, [element], 64)
        for ids, places in zip(sequences, targets, strict=True):
            model.base_model(**pad_batch([ids], tokenizer.pad_token_id, model.device))
            features.append(torch.cat([read[n][0, places].mean(0) for n in sorted(read)[1:]]))
    rows = word_rows(triples, vader_lexicon())
    data = ProbeData(torch.stack(features).numpy(), rows["truth"].to_numpy(), rows)
    rows = out_of_fold(data, "ridge", "by_word", Probes(alphas=(1, 10, 100, 1000)), 0).frame(data)
    words = rows.groupby("word")[["truth", "prediction"]].mean()
    taus = {sign: kendalltau(*words[words["truth"] * sign > 0].to_numpy().T)[0] for sign in (1, -1)}
    right = (np.sign(words["truth"]) == np.sign(words["prediction"])).mean()
    return {"tau positive": taus[1], "tau negative": taus[-1], "sign": right}


def main() -> None:
    """Train the organism, and print a line for every measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model of config/config.yaml")
    parser.add_argument("changes", nargs="*", help="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    changes = {key: yaml.safe_load(value) for key, value in (c.split("=") for c in options.changes)}
    settings = Organism.of(config["models"][options.model]["organism"] | changes)
    frames = {name: frames_of(name, config["corpora"][name]) for name in settings.corpora}
    train = [text for frame in frames.values() for text in documents(frame["train"])]
    held_out = [t for f in frames.values() for t in documents(f["test"])[:DOCUMENTS]]
    tokenizer = train_tokenizer(train, settings.vocab_size, settings.tokenizer)
    start = time.process_time()
    model, _ = pretrain(tokenizer, packed_tokens(tokenizer, train), settings)
    print(f"training: {time.process_time() - start:.0f} CPU-s, {model.num_parameters():,} weights")
    for part, values in rises(model, tokenizer, held_out).items():
        print(f"cross-entropy, {part}:", ", ".join(f"{value:.3f}" for value in values))
    if "reviews" in frames:  # no other corpus has words of many valences
        texts = list(frames["reviews"]["test"]["text"])
        for quantity, value in valences(model, tokenizer, texts).items():
            print(f"{quantity}: {value:.3f}")


if __name__ == "__main__":
    main()
