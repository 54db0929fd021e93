"""Every supported family: the hook reads exactly the MLP's output, on either padding side; logits
are the model's.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

from lfp.interventions.completions import stacked
from lfp.interventions.paired import Beside, Swapped
from lfp.models import limits
from lfp.models.architectures import ARCHITECTURES, blocks, output_logits, width
from lfp.models.generation import generate
from lfp.models.hooks import (
    captured,
    captured_final,
    continuations,
    edited,
    hook_name,
    site_activations,
    site_modules,
    site_width,
)
from lfp.models.tokens import pad_batch, position_ids
from lfp.sites import SITES

LAYERS, WIDTH, VOCABULARY = 2, 16, 60
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
_LLAMA = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8, "intermediate_size": 24, "max_position_embeddings": 64, **_IDS,
}  # fmt: skip
CONFIGURATIONS = {
    "gpt_neox": lambda t: t.GPTNeoXConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, **_IDS,
    ),
    "gpt_neo": lambda t: t.GPTNeoConfig(
        hidden_size=WIDTH, num_layers=LAYERS, num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64, **_IDS,
    ),
    "gpt2": lambda t: t.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=64, **_IDS),
    "opt": lambda t: t.OPTConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, ffn_dim=24,
        word_embed_proj_dim=WIDTH,
        max_position_embeddings=64, **_IDS,
    ),
    "llama": lambda t: t.LlamaConfig(**_LLAMA),
    "mistral": lambda t: t.MistralConfig(sliding_window=32, **_LLAMA),
    "qwen2": lambda t: t.Qwen2Config(**_LLAMA),
    "qwen3": lambda t: t.Qwen3Config(**_LLAMA),
    "gemma": lambda t: t.GemmaConfig(**_LLAMA),
    "gemma2": lambda t: t.Gemma2Config(final_logit_softcapping=2.0, sliding_window=32, **_LLAMA),
    "gemma3_text": lambda t: t.Gemma3TextConfig(sliding_window=32, **_LLAMA),
    "gemma3": lambda t: t.Gemma3Config(
        text_config=t.Gemma3TextConfig(sliding_window=32, **_LLAMA),
        vision_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1,
                       "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=VOCABULARY - 1, boi_token_index=VOCABULARY - 2,
        eoi_token_index=VOCABULARY - 3,
    ),
}  # fmt: skip


@pytest.fixture(params=CONFIGURATIONS)
def tiny(request):
    torch.manual_seed(0)
    config = CONFIGURATIONS[request.param](transformers)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    ).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # so that a wrong module would show
    return model


def test_no_pass_reads_more_tokens_than_there_are_positions(tiny):
    limited = limits.guarded(tiny)
    full, half = torch.full((2, 64), 5), torch.full((1, 32), 5)
    for reader in (limited, limited.base_model):
        cache = reader(full[:1, :32], use_cache=True).past_key_values
        reader(half, past_key_values=cache)
        for ids, read in ((torch.full((2, 65), 5), None), (half[:, :1], cache)):
            with pytest.raises(ValueError, match="65 tokens is longer than the 64 positions"):
                reader(ids, past_key_values=read)


def mlp_by_hand(family: str, block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The MLP of a block from its weights."""
    if family == "gpt_neox":
        return block.mlp.dense_4h_to_h(F.gelu(block.mlp.dense_h_to_4h(x)))
    if family in ("gpt_neo", "gpt2"):
        return block.mlp.c_proj(F.gelu(block.mlp.c_fc(x), approximate="tanh"))
    if family == "opt":
        return block.fc2(F.relu(block.fc1(x)))
    gelu = family.startswith("gemma")
    gate = block.mlp.gate_proj(x)
    return block.mlp.down_proj(
        (F.gelu(gate, approximate="tanh") if gelu else F.silu(gate)) * block.mlp.up_proj(x)
    )


def norm_before_mlp(family: str, block: torch.nn.Module) -> torch.nn.Module:
    """The norm whose output goes into the MLP."""
    names = {"gpt_neo": "ln_2", "gpt2": "ln_2", "opt": "final_layer_norm"}
    late = (
        "pre_feedforward_layernorm"
        if family in ("gemma2", "gemma3_text", "gemma3")
        else "post_attention_layernorm"
    )
    return block.get_submodule(names.get(family, late))


def test_every_supported_family_is_tested():
    assert set(CONFIGURATIONS) == set(ARCHITECTURES)


@torch.inference_mode()
def test_the_hook_reads_exactly_the_output_of_the_mlp(tiny):
    family, sequences = tiny.config.model_type, [[5, 6, 7, 8, 9], [10, 11, 12]]
    inputs: dict[int, torch.Tensor] = {}
    handles = [
        norm_before_mlp(family, block).register_forward_hook(
            lambda module, args, output, layer=layer: inputs.__setitem__(layer, output)
        )
        for layer, block in enumerate(blocks(tiny))
    ]
    [(_, mask, outputs)] = list(site_activations(tiny, sequences, range(LAYERS), 1, 2))
    for handle in handles:
        handle.remove()
    assert len(blocks(tiny)) == LAYERS
    for layer, block in enumerate(blocks(tiny)):
        assert outputs[layer].shape == (2, 5, WIDTH)
        expected = mlp_by_hand(family, block, inputs[layer]).reshape(2, 5, WIDTH)
        torch.testing.assert_close(outputs[layer][mask], expected[mask])


@torch.inference_mode()
def test_a_pass_ends_behind_the_last_wanted_layer_with_the_same_outputs(tiny):
    """For every family, whatever the lengths: what is left out is never looked at."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 60, n).tolist() for n in (1, 9, 4, 4, 7)]
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, block in enumerate(blocks(tiny))
    ]
    whole = dict(read(site_activations(tiny, sequences, [0], 1, 2, stop=False)))
    assert set(ran) == set(range(LAYERS))
    ran.clear()
    stopped = dict(read(site_activations(tiny, sequences, [0], 1, 3)))
    assert not ran
    for handle in handles:
        handle.remove()
    for i, ids in enumerate(sequences):
        assert len(whole[i]) == len(ids)
        torch.testing.assert_close(stopped[i], whole[i], atol=1e-5, rtol=1e-5)
    assert not any(module._forward_hooks for module in tiny.modules())


@torch.inference_mode()
def test_a_prefix_that_is_read_once_gives_what_reading_it_again_gives(tiny):
    """For every family, prefixes of any length (also none) and continuations of
    different lengths.
    """
    rng = np.random.default_rng(1)
    draw = lambda n: rng.integers(5, 50, n).tolist()  # noqa: E731
    shared = [0, 3, 8, 1, 8, 0]
    prefixes = [draw(n) for n in shared]
    sequences = [[prefix + draw(int(rng.integers(1, 6))) for prefix in prefixes] for _ in range(3)]
    seen = set()
    for index, outputs, final in continuations(tiny, sequences, shared, range(LAYERS), 1, 2):
        for row, i in enumerate(index):
            seen.add(int(i))
            for kind in range(3):
                ids = sequences[kind][i]
                with captured(tiny, range(LAYERS)) as plain, captured_final(tiny) as plain_final:
                    tiny(torch.tensor([ids]), use_cache=False)
                own = slice(len(ids) - shared[i])
                for layer in range(LAYERS):
                    expected = plain[layer].reshape(1, len(ids), WIDTH)[0, shared[i] :]
                    torch.testing.assert_close(
                        outputs[layer][kind][row, own], expected, atol=1e-4, rtol=1e-4
                    )
                expected = plain_final[0][0, shared[i] :]
                torch.testing.assert_close(final[kind][row, own], expected, atol=1e-4, rtol=1e-4)
    assert seen == set(range(len(shared)))


def read(passes) -> Iterator[tuple[int, torch.Tensor]]:
    """(sequence, MLP outputs of layer 0 on its tokens) of all batches."""
    for index, mask, outputs in passes:
        for row, i in enumerate(index):
            yield int(i), outputs[0][row][mask[row]]


@torch.no_grad()
def test_features_and_logits_do_not_depend_on_the_padding_side(tiny):
    sequences = [[5, 6, 7, 8, 9], [10, 11, 12]]
    found = {}
    for left in (False, True):
        batch = pad_batch(sequences, 1, "cpu", left=left)
        with captured(tiny, range(LAYERS)) as outputs, captured_final(tiny) as final:
            logits = tiny(
                **batch, position_ids=position_ids(batch["attention_mask"]), use_cache=False
            ).logits
        mask = batch["attention_mask"].bool()
        found[left] = [outputs[layer].reshape(*mask.shape, -1)[mask] for layer in range(LAYERS)] + [
            logits[mask]
        ]
        torch.testing.assert_close(output_logits(tiny, final[0])[mask], logits[mask])
    order = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    for right, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(right[order], other[order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_edit_reaches_generation_and_goes_away_again(tiny):
    batch = pad_batch([[5, 6, 7], [8, 9]], 1, "cpu", left=True)
    clean, logits = generate(tiny, batch, 4, 0, eos=0, pad=1), tiny(**batch).logits
    called = []

    def ablate(x: torch.Tensor) -> torch.Tensor:
        called.append(x.shape)
        return torch.zeros_like(x)

    with edited(tiny, dict.fromkeys(range(LAYERS), ablate)):
        sampled = generate(tiny, batch, 4, 0, eos=0, pad=1)
        calls = len(called)
        assert not torch.allclose(tiny(**batch).logits, logits, atol=1e-3)
    assert calls == LAYERS * sampled.shape[1]  # once for every layer and sampled token
    assert torch.equal(clean, generate(tiny, batch, 4, 0, eos=0, pad=1))
    torch.testing.assert_close(tiny(**batch).logits, logits)
    assert width(tiny) == WIDTH
    assert hook_name(tiny, 1).endswith(("layers.1.mlp", "h.1.mlp", "layers.1.fc2"))


@pytest.mark.parametrize("site", ["mlp", "resid"])
@torch.no_grad()
def test_the_other_models_activations_take_the_place_of_this_ones(tiny, site):
    """In every family, alone and as one of two conditions of a batch, and while text is written."""
    other, layer = copy.deepcopy(tiny), 1
    for parameter in other.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    batch = pad_batch([[5, 6, 7], [8, 9, 10]], 1, "cpu", left=True)
    with captured(other, [layer], site=site) as theirs:
        other(**batch)
    with edited(tiny, {layer: lambda x: theirs[layer].reshape(x.shape)}, site=site):
        expected = tiny(**batch).logits
    beside = Beside(tiny, other, [layer], site)
    twice = {name: torch.cat([values, values]) for name, values in batch.items()}
    with beside.reading():
        swapped = {layer: Swapped(beside, layer)}
        with edited(tiny, swapped, site=site):
            torch.testing.assert_close(tiny(**batch).logits, expected)
            alone = generate(tiny, batch, 4, 0, eos=0, pad=1)
        with edited(tiny, stacked([{}, swapped]), site=site):
            half = tiny(**twice).logits[2:]
            torch.testing.assert_close(half, expected, atol=1e-5, rtol=1e-4)
            generate(tiny, twice, 4, 0, eos=0, pad=1)
    assert alone.shape == (2, 4)
    assert not torch.allclose(expected, tiny(**batch).logits, atol=1e-3)


@torch.no_grad()
def test_every_site_is_where_its_name_says(tiny):
    """The residual stream is the next block's input; the heads' outputs give the attention's."""
    sequences = [[5, 6, 7, 8], [9, 10, 11, 12]]

    def read(site: str) -> dict[int, torch.Tensor]:
        [(_, _, values)] = site_activations(tiny, sequences, range(LAYERS), 1, 2, site=site)
        return values

    entered = []

    def keep(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        entered.append((*args, *kwargs.values())[0])

    handle = blocks(tiny)[1].register_forward_pre_hook(keep, with_kwargs=True)
    resid = read("resid")
    handle.remove()
    torch.testing.assert_close(resid[0], entered[0])
    heads, attn = read("heads"), read("attn")
    project = site_modules(tiny, [1], "heads")[1]
    torch.testing.assert_close(project(heads[1]), attn[1])
    assert {site: read(site)[1].shape[-1] for site in SITES} == {
        site: site_width(tiny, site) for site in SITES
    }
    assert hook_name(tiny, 1, "resid").endswith((".1",))


@torch.no_grad()
@pytest.mark.parametrize("site", SITES)
def test_an_edit_of_a_site_changes_that_site_alone(tiny, site):
    ids = torch.tensor([[5, 6, 7, 8]])

    def bend(x: torch.Tensor) -> torch.Tensor:  # no norm takes it back, as it would a factor
        return x * torch.linspace(0.5, 2.0, x.shape[-1])

    clean = tiny(ids).logits
    with edited(tiny, {0: lambda x: x}, site):
        assert torch.equal(tiny(ids).logits, clean)
    with edited(tiny, {0: bend}, site), captured(tiny, [0], site=site) as seen:
        changed = tiny(ids).logits
    with captured(tiny, [0], site=site) as untouched:
        tiny(ids)
    # The edit was registered first, so the reading hook sees what it made.
    torch.testing.assert_close(seen[0], bend(untouched[0]))
    assert not torch.allclose(changed, clean, atol=1e-4)


def test_opt_with_late_norms_is_refused():
    model = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, ffn_dim=24,
            word_embed_proj_dim=8,
            do_layer_norm_before=False, max_position_embeddings=32, **_IDS,
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="opt-350m"):
        blocks(model)
