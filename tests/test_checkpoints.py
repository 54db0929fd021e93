"""Checkpoints from outside: every weight is there under its name, or the copy is refused."""

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lfp.files.checkpoints import INDEX, check_values, plain_name, take_checkpoint
from lfp.files.hub import SourceError
from lfp.files.provenance import ArtefactError
from lfp.models.loading import check_weights, load_model, load_tokenizer, save_model
from tests.conftest import make_model

BIAS = "gpt_neox.layers.1.mlp.dense_4h_to_h.bias"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def source(neox, tokenizer, tmp_path) -> Path:
    """A checkpoint of a GPT-NeoX in bfloat16, which NumPy does not have."""
    save_model(neox.to(torch.bfloat16), tokenizer, tmp_path / "source")
    return tmp_path / "source"


def rewrite(source: Path, change: Callable[[Weights], Weights]) -> None:
    """Replace the weights of a checkpoint."""
    weights = change(load_file(source / "model.safetensors"))
    save_file(weights, source / "model.safetensors", {"format": "pt"})


def rename(source: Path, change: Callable[[str], str]) -> None:
    """Rename all tensors of a checkpoint, in its index too."""
    for path in source.glob("*.safetensors"):
        weights = {change(name): value for name, value in load_file(path).items()}
        save_file(weights, path, {"format": "pt"})
    if (source / INDEX).exists():
        index = json.loads((source / INDEX).read_text())
        index["weight_map"] = {change(name): file for name, file in index["weight_map"].items()}
        (source / INDEX).write_text(json.dumps(index))


def configure(source: Path, file: str = "config.json", **values: object) -> None:
    """Change values of a checkpoint's configuration."""
    config = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps(config | values))


def take(source: Path, classifier: bool = False) -> Path:
    """The copy of a checkpoint, checked as the jobs check it."""
    target = source.with_name("target")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    take_checkpoint(source, target, classifier)
    check_weights(target, source, classifier)
    return target


WRAPPED = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "parallel": lambda name: f"module.{name}",
    "trl": lambda name: f"pretrained_model.{name}",
    "compiled trl in parallel": lambda name: f"module._orig_mod.pretrained_model.{name}",
    "fully sharded, with checkpoints of activations": lambda name: (
        "_fsdp_wrapped_module." + name.replace(".mlp.", "._checkpoint_wrapped_module.mlp.")
    ),
    "compiled blocks": lambda name: name.replace(".attention.", "._orig_mod.attention."),
    "wrapped by a strategy of Lightning": lambda name: f"_forward_module.{name}",
}  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_names_of_wrappers_are_taken_off_and_logged(wrapped, source, neox, caplog):
    rename(source, wrapped)
    with pytest.raises(ArtefactError, match=r"the weights lack gpt_neox\.\S+ \(\d+ tensors"):
        load_model(source)
    copied = load_model(take(source), dtype="bfloat16")
    for name, weights in neox.state_dict().items():
        assert torch.equal(copied.state_dict()[name], weights), name
    assert "taken off the names of" in caplog.text


def test_shards_with_tied_weights_are_taken_under_their_names(tokenizer, tmp_path, caplog):
    gemma, source = make_model("gemma", tokenizer), tmp_path / "source"
    save_model(gemma, tokenizer, source)
    (source / "model.safetensors").unlink()
    gemma.save_pretrained(source, max_shard_size="20KB")
    rename(source, lambda name: f"module._orig_mod.{name}")
    target = take(source)
    assert len(list(target.glob("model-*.safetensors"))) > 1
    for ours, theirs in zip(load_model(target).parameters(), gemma.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    names = json.loads((target / INDEX).read_text())["weight_map"]
    assert names and not any("_orig_mod" in name for name in names)
    shard = next(source.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(SourceError, match=f"{INDEX}: {source} lacks {shard.name}"):
        take(source)
    (source / INDEX).write_text('{"weight_map": []}')
    with pytest.raises(SourceError, match="lacks every shard"):
        take(source)


def test_a_value_head_is_left_out(source, caplog):
    head = {"v_head.summary.weight": torch.ones(1, 16), "v_head.summary.bias": torch.ones(1)}
    rewrite(source, lambda weights: weights | head)
    assert not [name for name in load_file(take(source) / "model.safetensors") if "v_head" in name]
    assert "value head is left out: v_head.summary.bias, v_head.summary.weight" in caplog.text


def test_a_name_keeps_what_is_no_wrappers():
    same = ("model.layers.0.mlp.module.weight", "my_module.x", "transformer.h.0.ln_1.weight", "x")
    assert [plain_name(name) for name in same] == list(same)


def test_masks_of_older_releases_and_poolers_are_no_weights(tokenizer, tmp_path):
    source = tmp_path / "source"
    save_model(make_model("gpt_neo", tokenizer), tokenizer, source)
    mask = {
        "transformer.h.0.attn.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "transformer.h.0.attn.attention.masked_bias": torch.tensor(-1e9),
    }
    rewrite(source, lambda weights: weights | mask)
    assert load_model(take(source)).config.model_type == "gpt_neo"


def test_the_infinite_masks_of_checkpoints_in_half_precision_are_no_weights(source):
    mask = {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9).half()}  # as Pythia's
    assert torch.isinf(*mask.values())
    rewrite(source, lambda weights: {n: w.half() for n, w in weights.items()} | mask)
    load_model(take(source))


WRONG = {
    "missing": (
        lambda weights: {name: value for name, value in weights.items() if name != BIAS},
        rf"the weights lack {BIAS} \(1 tensors",
    ),
    "mismatched": (
        lambda weights: weights | {BIAS: torch.zeros(17)},
        rf"hold {BIAS} in the shape \[17\], which is \[16\]",
    ),
    "unexpected": (
        lambda weights: weights | {f"{BIAS}_2": torch.zeros(16)},
        f"hold {BIAS}_2, which the architecture does not have",
    ),
    "foreign": (
        lambda weights: {f"net.{name}": value for name, value in weights.items()},
        r"the weights lack gpt_neox\S+ \(80 tensors",
    ),
    "headless": (
        lambda weights: {name: weights[name] for name in weights if name.startswith("gpt_neox")},
        r"the weights lack \S+ \(1 tensors",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit_are_named(change, message, source):
    rewrite(source, change)
    with pytest.raises(SourceError, match=f"{source}: .*{message}"):
        take(source)
    with pytest.raises(ArtefactError, match=message):
        load_model(source)


@pytest.mark.parametrize("layers", [2, 4])
def test_a_configuration_of_another_depth_is_found_by_the_weights(layers, source):
    configure(source, num_hidden_layers=layers)
    with pytest.raises(
        SourceError, match=r"gpt_neox\.layers\.[23]\..*\(12 tensors in all do not fit"
    ):
        take(source)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_named(value, dtype, tmp_path):
    largest = torch.finfo(dtype).max
    fine = torch.tensor([0.0, largest, -largest, torch.finfo(dtype).tiny], dtype=dtype)
    positions = {"bert.embeddings.position_ids": torch.tensor([7])}
    weights = {"fine": fine, "empty": torch.zeros(0, dtype=dtype)} | positions
    save_file(weights, tmp_path / "model.safetensors", {"dtype": "F32"})
    check_values(tmp_path, "m")
    wrong = torch.tensor([0.0, value, 1.0], dtype=dtype)
    save_file(weights | {"wrong": wrong}, tmp_path / "model.safetensors")
    with pytest.raises(
        SourceError, match="m: 1 of 3 values of the tensor wrong are NaN or infinite"
    ):
        check_values(tmp_path, "m")


def test_a_copy_with_values_that_are_not_finite_is_refused(source):
    rewrite(source, lambda weights: weights | {BIAS: torch.full_like(weights[BIAS], torch.nan)})
    with pytest.raises(SourceError, match=f"16 of 16 values of the tensor {BIAS}"):
        take(source)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "GPTNeoXForSequenceClassification", "7"])
def test_another_kind_of_model_is_named(name, source):
    for classes in ([name], name):
        configure(source, architectures=classes)
        with pytest.raises(SourceError, match=f"is a {name}, not a causal language model"):
            take(source)


def test_a_language_model_is_no_classifier(source):
    with pytest.raises(SourceError, match="is a GPTNeoXForCausalLM, not a sequence classifier"):
        take(source, classifier=True)
    configure(source, architectures=None)
    with pytest.raises(SourceError, match=r"the weights lack score\.weight"):
        take(source, classifier=True)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "one that transformers does not know"])
def test_quantised_weights_are_refused_by_name(method, source):
    configure(source, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(SourceError, match=rf"config\.json: .*quantised .*{method}"):
        take(source)


@pytest.mark.parametrize("name", [BIAS, BIAS.replace("bias", "weight")])
@pytest.mark.parametrize(("dtype", "kind"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_integers_and_eight_bits_are_no_weights(dtype, kind, name, source):
    rewrite(source, lambda weights: weights | {name: (weights[name] * 100).to(dtype)})
    with pytest.raises(SourceError, match=rf"the tensor {name} holds values of the type {kind}"):
        take(source)


def test_a_tensor_stands_in_the_one_shard_that_the_index_names(source, neox):
    (source / "model.safetensors").unlink()
    neox.save_pretrained(source, max_shard_size="20KB")
    index = json.loads((source / INDEX).read_text())
    first, second, *_ = sorted(set(index["weight_map"].values()))
    name = next(name for name, file in index["weight_map"].items() if file == second)
    take(source)
    (source / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {name: first}}))
    with pytest.raises(SourceError, match=f"the tensor {name} is to stand in {first}, .*{second}"):
        take(source)
    (source / INDEX).write_text(json.dumps(index))
    stale = load_file(source / first) | {name: torch.zeros(1)}
    save_file(stale, source / first, {"format": "pt"})
    with pytest.raises(SourceError, match=f"{name} stands in two shards, {first} and {second}"):
        take(source)


def test_the_attention_that_a_checkpoint_asks_for_does_not_count(source):
    configure(source, attn_implementation="flash_attention_2")
    assert load_model(take(source)).config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_pointers_of_git_lfs_are_named(name, source):
    (source / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4\n")
    with pytest.raises(SourceError, match=rf"{source / name} is .*run `git lfs pull` there"):
        take(source)


def test_a_home_that_a_shell_would_write_out_is_named():
    with pytest.raises(SourceError, match="~/model is not a directory; `~` is not expanded"):
        take_checkpoint("~/model", "target")


def test_values_of_other_types_are_named(source):
    configure(source, vocab_size="600")
    with pytest.raises(SourceError, match=r"cannot read its config\.json .*vocab_size"):
        take(source)
    (source / "tokenizer.json").write_text("[]")
    with pytest.raises(SourceError, match=r"source/tokenizer\.json: expected a JSON object"):
        take(source)


def test_adapters_are_to_be_merged_first(source):
    rewrite(source, lambda w: w | {"base_model.model.x.lora_A.default.weight": torch.zeros(2)})
    with pytest.raises(SourceError, match=r"lora_A\.default\.weight .*merge_and_unload"):
        take(source)
    shutil.copyfile(source / "model.safetensors", source / "adapter_model.safetensors")
    for _ in range(2):  # beside the weights of the base, and without them
        with pytest.raises(SourceError, match=r"adapter_model\.safetensors: .*merge_and_unload"):
            take(source)
        (source / "model.safetensors").unlink(missing_ok=True)


def test_damage_is_named_when_the_checkpoint_is_copied(source):
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"model\.safetensors is no whole safetensors file"):
        take(source)
    (source / "config.json").write_text("{")
    with pytest.raises(SourceError, match=r"config\.json is not JSON"):
        take(source)
    (source / "model.safetensors").rename(source / "pytorch.safetensors")
    with pytest.raises(SourceError, match=r"has pytorch\.safetensors, and neither model"):
        take(source)


def test_two_tensors_of_one_name_are_refused(source):
    rewrite(source, lambda weights: weights | {f"module.{BIAS}": torch.zeros(16)})
    with pytest.raises(SourceError, match=f"two tensors for {BIAS}"):
        take(source)


@pytest.fixture
def silent(monkeypatch):
    """A terminal at which nobody answers: a question fails the test."""
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("a question was asked"))


def test_code_of_a_checkpoint_is_refused_without_a_question(source, silent):
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    configure(source, auto_map=code)
    model = load_model(take(source))  # transformers has the architecture itself
    assert model.config.model_type == "gpt_neox"
    configure(source, model_type="evil")
    with pytest.raises(SourceError, match=r"config\.json: `auto_map` asks for code .*evil\.Model"):
        take(source)
    with pytest.raises(ArtefactError):
        load_model(source)
    for broken in ({"auto_map": None}, {"auto_map": {}, "model_type": 7}):
        configure(source, **broken)
        with pytest.raises(SourceError, match=r"transformers cannot read its config\.json"):
            take(source)


def test_code_of_a_tokenizer_is_refused_without_a_question(source, silent):
    configure(source, model_type="evil")
    code = {"auto_map": {"AutoTokenizer": ["evil.Slow", None]}, "tokenizer_class": "Evil"}
    configure(source, "tokenizer_config.json", **code)
    with pytest.raises(SourceError, match=r"tokenizer_config\.json: `auto_map` asks for code"):
        load_tokenizer(source)


def test_a_copy_and_its_source_do_not_change_each_other(source):
    target = take(source)
    before = (target / "model.safetensors").read_bytes()
    with (source / "model.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 8)
    assert (target / "model.safetensors").read_bytes() == before
    assert all(path.stat().st_nlink == 1 for path in target.iterdir())


def test_a_checkpoint_of_links_is_taken_as_files(source, tmp_path):
    """As a snapshot in the cache of the hub is laid out."""
    blobs = source.rename(tmp_path / "blobs")
    source.mkdir()
    for path in blobs.iterdir():
        (source / path.name).symlink_to(path)
    target = take(source)
    assert load_model(target) and not any(path.is_symlink() for path in target.iterdir())
