"""Wherever a run is killed, its restart ends in the right tables; the long form is `make
test-faults`.
"""

import pytest

from tests import faults

pytestmark = pytest.mark.workflow


def test_three_kills_change_no_byte_of_any_table(tmp_path):
    assert faults.campaign(tmp_path, kills=3, seed=1, longest=12.0).total() == 3
