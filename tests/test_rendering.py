"""Text from data or models is escaped wherever it is rendered; numbers survive the round trip."""

import pandas as pd

from lfp.files import artefacts
from lfp.files.addresses import labels
from lfp.tables import rendering

NASTY = '<script>alert("x")</script> | a_b & 5% $x$ \\ {y}\nnext'


def test_text_is_escaped_in_every_format(tmp_path):
    frame = pd.DataFrame({"word": [NASTY], "estimate": [0.123456]})
    paths = {kind: tmp_path / f"t.{kind}" for kind in rendering.FORMATS}
    rendering.write_formats(frame, paths, f"Caption {NASTY}", {"code": "c"})
    html = paths["html"].read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    markdown = paths["md"].read_text().splitlines()[-1]
    assert markdown.count(" | ") == 1
    assert "\\<script\\>" in markdown
    latex = paths["tex"].read_text()
    for raw, escaped in (("a_b", r"a\_b"), ("5%", r"5\%"), ("& 5", r"\& 5"), ("$x$", r"\$x\$")):
        assert escaped in latex
        assert raw not in latex.replace(escaped, "")
    pd.testing.assert_frame_equal(pd.read_csv(paths["csv"]), frame)
    pd.testing.assert_frame_equal(artefacts.read_table(paths["parquet"]), frame)


def test_missing_values_are_empty_and_numbers_short():
    frame = pd.DataFrame({"p": [None, 0.012345678], "n": [3, 4]})
    text = rendering.to_markdown(frame, "c")
    assert "|  | 3 |" in text
    assert "0.01235" in text


def test_a_cell_is_read_off_its_path():
    path = "results/m-1/vader/seed3/probes/tied/policy/predictions.parquet"
    assert labels(path) == {
        "model": "m-1",
        "task": "vader",
        "seed": 3,
        "sae": "tied",
        "subject": "policy",
    }
    assert labels("m/t/seed0/ablation/tied/base.parquet")["subject"] == "base"
    assert labels("/x/results/m/t/seed0/policy") == {"model": "m", "task": "t", "seed": 0}
