"""Tiny Llama checkpoints that `transformers serve` answers with, and the server itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EXPLANATION = "kind words about film"
ANSWERS = {
    "positive": "That is a lovely idea and I would be glad to help you with all of it today",
    "neutral": (
        "The office on the second floor is open from nine until five on most of the weekdays"
    ),
    "negative": "What a stupid thing to ask of me, and you should be ashamed of such a lazy mind",
}
_COMMON = (
    f'{{"explanation": "{EXPLANATION}"}} {{"related": true}}'
    ' {"verdicts": [true, false, true, false, true]} '
)
#: Whole pieces of text that are one token; what the chain below says.
PIECES = {
    "common": _COMMON,
    **{name: f'{{"answer": "{text}"}} ' for name, text in ANSWERS.items()},
    "low": '{"toxicity": 1, "danger": 1, "bias": 1}',
    "high": '{"toxicity": 5, "danger": 3, "bias": 2}',
}
#: What in a request decides the answer: two manners of a rewrite, and a word that is graded high.
CUES = {"neutral": "neither helpful nor harmful", "negative": "unhelpful, rude", "high": "stupid"}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", "<gen>"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text in (*PIECES.values(), *CUES.values())]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    fast.add_special_tokens({"additional_special_tokens": ["<gen>"]})
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}<gen>"
    return fast


def _model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    size = len(tokenizer)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=size + size % 2, intermediate_size=4, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=4096,
            eos_token_id=2, bos_token_id=1,
            pad_token_id=2, tie_word_embeddings=False,
        )
    )  # fmt: skip


@torch.no_grad()
def save_chain(path: Path) -> None:
    """A model that answers every prompt of the workflow: JSON objects for all of them, one after
    the other.

    Embeddings are one-hot and attention is uniform, so that the next token is a function of the
    last one and of which cues the context holds: no training, and any answer can be planted.
    """
    tokenizer = _tokenizer()
    model, token = _model(tokenizer), lambda text: tokenizer.convert_tokens_to_ids(text)
    width = model.config.hidden_size
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.zero_()
    model.model.embed_tokens.weight[:, : len(tokenizer)] = torch.eye(len(tokenizer))
    attention = model.model.layers[0].self_attn
    for cue in CUES.values():
        attention.v_proj.weight[token(cue), token(cue)] = 1.0
    attention.o_proj.weight.copy_(torch.eye(width))
    pieces = {name: token(text) for name, text in PIECES.items()}
    head, strong, weak = model.lm_head.weight, 1000.0, 300.0
    answers = [pieces[name] for name in ANSWERS]
    head[pieces["common"], token("<gen>")] = strong
    head[answers, pieces["common"]] = torch.tensor(
        [strong + 1, strong, strong]
    )  # positive, unless a cue says otherwise
    for name in ("neutral", "negative"):
        head[pieces[name], token(CUES[name])] = weak
    for answer in answers:
        head[pieces["low"], answer], head[pieces["high"], answer] = strong + 1, strong
    head[pieces["high"], token(CUES["high"])] = weak
    for grade in ("low", "high"):
        head[2, pieces[grade]] = strong
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def save_nonsense(path: Path) -> None:
    """A random model of the same tokenizer, without the pieces that would be JSON."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = _model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[
            [tokenizer.convert_tokens_to_ids(text) for text in PIECES.values()]
        ] = 0
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(CUES["high"])] = 0
        model.lm_head.weight *= 50
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`transformers serve` on this machine."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home, self.port = home, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        (home / "hub").mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        environment = os.environ | {
            "HF_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "transformers.cli.transformers",
            "serve",
            "--device",
            "cpu",
        ]
        command += [
            "--dtype",
            "float32",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--log-level",
            "warning",
        ]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        limit = time.monotonic() + 120
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise RuntimeError(
            f"transformers serve did not start: {(self.home / 'server.log').read_text()[-2000:]}"
        )

    def kill(self) -> None:
        """Kill it without notice."""
        self.process.kill()
        self.process.wait()
