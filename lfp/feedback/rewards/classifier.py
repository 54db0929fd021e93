"""A sequence classifier as the reward (paper appendix B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.feedback.rewards.base import Reward, Scale, TaskReward

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Classifier(TaskReward):
    """The logit of the label ``positive`` of the task's classifier."""

    def score(self, scale: Scale) -> Reward:
        """The label's logit, clipped. Raises ValueError where no classifier was given."""
        if scale.classifier is None:
            raise ValueError(
                "the reward `classifier` needs the directory of a classifier, and got none; name"
                " one of `classifiers` as the task's `classifier`"
            )
        return classifier_reward(
            scale.classifier, self.settings["positive"], scale.clip, scale.reward_on, scale.device
        )


def classifier_reward(
    path: str | Path,
    positive: str | int,
    clip: float,
    reward_on: str,
    device: str = "cpu",
    batch_size: int = 64,
) -> Reward:
    """The logit of one label of a sequence classifier, clipped (paper appendix B).

    Parameters
    ----------
    path
        Directory of the classifier with its tokenizer.
    positive
        The label's name or its number.
    clip
        Largest absolute reward.
    reward_on
        The scored text: ``full``, prefix and completion, or the ``completion`` alone.
    device, batch_size
        Device of the classifier, and the number of texts that it reads at a time.

    Raises
    ------
    FileNotFoundError, ArtefactError
        As :func:`lfp.models.loading.load_whole`: without safetensors weights, or with weights that
        are not those of the classifier.
    ValueError
        For a label that the classifier does not have.
    """
    import numpy as np
    from transformers import AutoModelForSequenceClassification

    from lfp.feedback.scoring import scored_texts
    from lfp.models.loading import load_tokenizer, load_whole

    tokenizer = load_tokenizer(path)
    model = load_whole(AutoModelForSequenceClassification, path)
    model = model.to(device).eval()
    label = _label_number(model.config.id2label, positive, path)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        texts = scored_texts(prompts, completions, reward_on)
        logits = _logits(model, tokenizer, texts, batch_size)
        return np.clip(logits[:, label], -clip, clip)

    return reward


def _logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
) -> np.ndarray:
    """Logits [text, label] of a classifier for texts cut to 512 tokens, or to its positions.

    Where texts are padded on the left, positions are counted from a text's first token, so that its
    logits are its own whatever stands beside it.
    """
    import inspect

    import torch

    from lfp.models.tokens import pad_batch, position_ids, tokenize

    most = min(512, tokenizer.model_max_length, _positions(model) or 512)
    pad, left, logits = tokenizer.pad_token_id, tokenizer.padding_side == "left", []
    placed = left and "position_ids" in inspect.signature(model.forward).parameters
    placed = placed and _padding_position(model) is None  # else the model finds padding itself
    for start in range(0, len(texts), batch_size):
        ids = tokenize(tokenizer, texts[start : start + batch_size], most).ids
        batch = pad_batch(ids, pad, model.device, left)
        if placed:
            batch["position_ids"] = position_ids(batch["attention_mask"])
        with torch.no_grad():
            logits.append(model(**batch).logits.double().cpu())
    return torch.cat(logits).numpy()


def _positions(model: PreTrainedModel) -> int | None:
    """The largest number of tokens that a classifier reads; None where it has no limit."""
    from lfp.models.limits import most_positions

    padding, most = _padding_position(model), most_positions(model.config)
    return most if most is None or padding is None else most - padding - 1


def _padding_position(model: PreTrainedModel) -> int | None:
    """The position of padding, from behind which RoBERTa and its kin count; None in others."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    return getattr(table, "padding_idx", None)


def _label_number(names: Mapping[int, str], positive: str | int, path: str | Path) -> int:
    """The number of the label `positive`, which is a label's name or its number."""
    labels = {str(name): int(number) for number, name in names.items()}
    labels |= {str(number): number for number in labels.values()}
    if str(positive) not in labels:
        raise ValueError(
            f"{path}: no label {positive!r}; the classifier has {', '.join(labels)}. Set `positive`"
        )
    return labels[str(positive)]
