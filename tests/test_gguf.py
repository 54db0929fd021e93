"""Models from GGUF files: equal to the model that was written, and refused where they would not
be.
"""

import hashlib
import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from lfp.configuration import ConfigurationError
from lfp.files.hub import SourceError, gguf_parts, whole_file
from lfp.limits import check_size, size_of
from lfp.models.architectures import architecture
from lfp.models.gguf import read
from lfp.models.loading import load_model, load_tokenizer
from tests.conftest import run_job

#: llama.cpp's names of the tensors of a Llama.
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
#: The tensor that the file holds in blocks of eight bits.
QUANTISED = "model.layers.1.mlp.down_proj.weight"
HEADS, KEY_HEADS = 4, 2


@pytest.fixture(scope="module")
def llama(tokenizer):
    """A tiny Llama with grouped keys whose weights the file format can hold without a change."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, head_dim=8,
        max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.3,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    weights = model.get_parameter(QUANTISED).data
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(weights.numpy(), kind)
    weights.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, kind)))
    return model


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of query or key weights in the order in which llama.cpp rotates them."""
    halves = weights.reshape(heads, 2, -1, weights.shape[-1])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def name_in_file(name: str) -> str:
    """llama.cpp's name of the tensor `name`."""
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, part = module.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def write_gguf(
    path: Path, model, tokenizer, family: str = "llama", left_out: str = "", scaling: str = "",
    extra: str = "", factor: str = "",
) -> None:  # fmt: skip
    """Write `model` and `tokenizer` as llama.cpp's converter does."""
    config, writer = model.config, gguf.GGUFWriter(path, family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
    if factor:
        writer.add_float32(f"{family}.rope.{factor}", 4.0)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = set(tokenizer.all_special_tokens)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for name, tensor in model.state_dict().items():
        if name == left_out:
            continue
        weights = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            weights = interleaved(weights, HEADS if "q_proj" in name else KEY_HEADS)
        if name == QUANTISED:
            kind = gguf.GGMLQuantizationType.Q8_0
            blocks = gguf.quants.quantize(weights, kind)
            writer.add_tensor(name_in_file(name), blocks, raw_dtype=kind)
        else:
            writer.add_tensor(name_in_file(name), weights)
    if extra:
        writer.add_tensor(extra, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def file(llama, tokenizer, tmp_path):
    """The tiny Llama as a GGUF file."""
    (tmp_path / "source").mkdir()
    write_gguf(tmp_path / "source" / "tiny.gguf", llama, tokenizer)
    return tmp_path / "source" / "tiny.gguf"


def cut(file: Path, n: int) -> list[Path]:
    """`n` parts of `file`."""
    content, parts = file.read_bytes(), []
    size = -(-len(content) // n)
    for index in range(n):
        parts.append(file.with_name(f"{file.name}.part{index}"))
        parts[-1].write_bytes(content[index * size : (index + 1) * size])
    return parts


def copy_model(path: str | list[str], tmp_path: Path) -> subprocess.CompletedProcess:
    """The rule's job."""
    settings, outputs = {"path": path}, {"model": "o/model"}
    return run_job("copy_model", settings, {}, outputs, tmp_path, HF_HUB_OFFLINE="1")


def test_a_gguf_file_becomes_the_checkpoint_that_it_was_made_of(
    file, llama, tokenizer, reviews, tmp_path
):
    parts = cut(file, 3)
    result = copy_model([str(part) for part in parts], tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    folder = tmp_path / "o" / "model"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "source.json", "stamp.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    model, copied = load_model(folder), load_tokenizer(folder)
    for name, weights in llama.state_dict().items():
        assert torch.equal(model.state_dict()[name], weights), name
    ids = tokenizer(reviews[:8])["input_ids"]
    assert copied(reviews[:8])["input_ids"] == ids
    assert copied.get_vocab() == tokenizer.get_vocab()
    special = ("eos_token_id", "bos_token_id", "pad_token_id")
    assert all(getattr(copied, name) == getattr(tokenizer, name) for name in special)
    with torch.no_grad():
        for row in (torch.tensor([row[:128]]) for row in ids):  # the model has 128 positions
            assert torch.equal(model(row).logits, llama(row).logits)
    assert architecture(model).blocks == "model.layers"
    origin = json.loads((folder / "source.json").read_text())
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin["files"] == [
        {
            "name": part.name, "bytes": part.stat().st_size,
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        }
        for part in parts
    ]  # fmt: skip


def test_parts_are_joined_in_a_folder_that_goes_away(file, tmp_path):
    for parts in (cut(file, 2), [file]):
        with whole_file(gguf_parts([str(part) for part in parts]), tmp_path) as (whole, origin):
            assert whole.read_bytes() == file.read_bytes()
            assert [path.name for path in whole.parent.iterdir()] == [whole.name]
            assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert not whole.parent.exists()
    assert file.exists()


def test_the_header_of_a_file_is_held_against_the_configuration(file, tmp_path):
    """Before any job, and also where the file lies in parts."""
    paths = [str(path) for path in cut(file, 3)]
    for path in (str(file), paths):
        entry = {"path": path, "n_layers": 2}
        size = size_of("m", entry)
        numbers = (size.n_layers, size.d_model, size.n_heads, size.positions)
        assert numbers == (2, 32, HEADS, 128)
        with pytest.raises(ConfigurationError, match=r"models.m.n_layers: got 3.*says 2; set it"):
            check_size("m", entry | {"n_layers": 3}, "models.m")
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:60])
    assert size_of("m", {"path": str(tmp_path / "cut.gguf")}).n_layers is None


def test_what_is_no_gguf_file_is_named(file, tmp_path):
    first, second = cut(file, 2)
    assert gguf_parts(str(tmp_path)) == []
    assert gguf_parts(str(file)) == [file]
    with pytest.raises(SourceError, match=r"absent\.gguf is not a file; it is part 1 of 1"):
        gguf_parts(str(tmp_path / "absent.gguf"))
    with pytest.raises(SourceError, match="part9 is not a file; it is part 2 of 2"):
        gguf_parts([str(first), str(tmp_path / "part9")])
    with pytest.raises(SourceError, match=r"part1 does not begin as a GGUF file does"):
        gguf_parts([str(second), str(first)])
    with pytest.raises(SourceError, match=r"llama-gguf-split --merge"):
        gguf_parts([str(file), str(file)])
    # The last part is not given: the message of the job names the file.
    result = copy_model([str(first)], tmp_path)
    assert result.returncode == 1, result.stderr[-2000:]
    assert "tiny.gguf.part0 cannot be read as a GGUF file" in result.stderr
    assert list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "gptneox"}, "holds a model of architecture 'gptneox'"),
        ({"family": "falcon"}, "architecture 'falcon'; of a GGUF file one of llama,"),
        ({"left_out": "model.layers.1.mlp.up_proj.weight"}, r"lacks model.layers.1.mlp.up_proj"),
        ({"extra": "rope_freqs.weight"}, "does not read its tensor rope_freqs.weight"),
        ({"scaling": "linear"}, r"scales its rotary embeddings \(linear\)"),
        ({"factor": "scaling.factor"}, r"scales its rotary embeddings \(linear, by 4.0\)"),
        ({"factor": "scale_linear"}, r"scales its rotary embeddings \(linear, by 4.0\)"),
    ],
)
def test_a_file_that_would_give_another_model_is_refused(
    changes, message, llama, tokenizer, tmp_path
):
    write_gguf(tmp_path / "other.gguf", llama, tokenizer, **changes)
    with pytest.raises(SourceError, match=f"tiny.gguf.*{message}"):
        read(tmp_path / "other.gguf", "tiny.gguf")


def test_an_unknown_rule_for_words_is_logged(file, llama, tokenizer, tmp_path, caplog):
    whole = file.read_bytes()
    rule = b"default"
    assert whole.count(rule) == 1
    (tmp_path / "other.gguf").write_bytes(whole.replace(rule, b"unheard"))
    read(file, "tiny.gguf")
    assert "cuts text into words" not in caplog.text
    read(tmp_path / "other.gguf", "other.gguf")
    assert "other.gguf cuts text into words by the rule 'unheard'" in caplog.text
