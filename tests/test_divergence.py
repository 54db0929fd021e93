"""Divergence is zero for an untouched model and finds the layer that was changed."""

import copy

import pytest
import torch
import transformers

from lfp.finetune import MEASURES, divergence
from lfp.models.hooks import site_modules
from tests.test_architectures import CONFIGURATIONS


def test_an_untouched_model_has_not_diverged(model):
    for row in divergence.parameter_divergence(model, copy.deepcopy(model)):
        assert row == {"mlp_l2": 0.0, "block_frobenius_sum": 0.0, "mlp_relative": 0.0}


@pytest.mark.parametrize("layer", [0, 2])
def test_the_changed_layer_ranks_first_by_every_measure(model, layer):
    policy = copy.deepcopy(model)
    with torch.no_grad():
        for value in site_modules(policy, [layer])[layer].parameters():
            value.add_(0.1)
    rows = divergence.parameter_divergence(model, policy)
    sequences = [[5, 6, 7, 8], [9, 10]]
    for row, change in zip(
        rows, divergence.activation_divergence(model, policy, sequences, 1, 2), strict=True
    ):
        row["activation"] = change
    measured = set(MEASURES) - {"locus"}  # which is of the effect and not of the change
    assert {divergence.ranking(rows, measure)[0] for measure in measured} == {layer}
    size = sum(value.numel() for value in site_modules(model, [layer])[layer].parameters())
    assert rows[layer]["mlp_l2"] == pytest.approx(0.1 * size**0.5, rel=1e-4)


def test_a_change_outside_the_mlp_counts_for_the_block_alone(neox):
    policy = copy.deepcopy(neox)
    with torch.no_grad():
        policy.gpt_neox.layers[1].attention.dense.weight.add_(1.0)
    row = divergence.parameter_divergence(neox, policy)[1]
    assert row["mlp_l2"] == 0
    assert row["block_frobenius_sum"] == pytest.approx(16.0, rel=1e-5)


def test_every_parameter_of_an_mlp_counts_where_no_module_holds_them_all():
    """OPT has two projections side by side in the block."""
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(CONFIGURATIONS["opt"](transformers))
    policy = copy.deepcopy(base)
    with torch.no_grad():
        policy.model.decoder.layers[0].fc1.weight.add_(1.0)
        policy.model.decoder.layers[1].fc2.bias.add_(0.01)
    rows = divergence.parameter_divergence(base, policy)
    assert rows[0]["mlp_l2"] == pytest.approx(
        base.model.decoder.layers[0].fc1.weight.numel() ** 0.5
    )
    assert {divergence.ranking(rows, measure)[0] for measure in rows[0]} == {0}


def test_ties_go_to_the_lower_layer():
    rows = [{"mlp_l2": 1.0}, {"mlp_l2": 2.0}, {"mlp_l2": 1.0}]
    assert divergence.ranking(rows, "mlp_l2") == [1, 0, 2]
