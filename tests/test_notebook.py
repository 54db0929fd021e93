"""The page on notebooks runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

PAGE = Path(__file__).parent.parent / "docs" / "notebook.md"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The names that the page's blocks leave, run one after the other in a folder of their own;
    nothing may be left in it.
    """
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    folder, names = tmp_path_factory.mktemp("notebook"), {}
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    torch.set_num_threads(threads)
    assert not list(folder.iterdir())
    return names


def test_fine_tuning_changes_the_policy_and_leaves_the_base(notebook):
    assert len(notebook["curve"]) == 24
    assert notebook["losses"][-1]["loss"] < 0.5 * notebook["losses"][0]["loss"]
    assert all(row["mlp_l2"] > 0 for row in notebook["measures"])
    assert notebook["scores"]["kl"].mean() > 0


def test_every_chosen_layer_has_a_pair_of_autoencoders(notebook):
    assert len(notebook["layers"]) == 2
    for layer in notebook["layers"]:
        assert [sae.d_sae for sae in notebook["pairs"][layer]] == [64, 128]
        assert all(0 < row["fvu"] < 0.5 for row in notebook["quality"][layer])


def test_the_probe_is_judged_on_held_out_words(notebook):
    chosen = notebook["chosen"]
    assert chosen["unit"].nunique() > 50
    assert (chosen.groupby("unit")["fold"].nunique() == 1).all()
    assert 0 < notebook["tau"] < 1


def test_every_arm_has_a_reward(notebook):
    rewards = notebook["rewards"]
    assert set(rewards.index) == {"none", "explained", "random"}
    assert np.isfinite(rewards).all()
    assert len(notebook["related"]) > 0
    untouched, explained = rewards["none"], rewards["explained"]
    assert untouched != explained
