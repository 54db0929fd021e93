"""Names are read without loading what they name."""

import subprocess
import sys

import pytest

from lfp.registry import Registry


def test_an_entry_is_loaded_when_it_is_asked_for():
    code = (
        "import sys; from lfp.registry import Registry; r = Registry('x', {'a': 'wave:open'});"
        "assert list(r) == ['a'] and 'wave' not in sys.modules; r['a']; assert 'wave' in"
        " sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_met_with_the_nearest_one():
    registry = Registry("architecture", {"topk": "json:loads"})
    with pytest.raises(ValueError, match="architecture 'topkk' is unknown; did you mean 'topk'?"):
        registry["topkk"]
    assert "topkk" not in registry and "topk" in registry
