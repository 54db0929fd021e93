"""What long work shows: a bar in the terminal and in the log, and curves for TensorBoard where they
are asked for.
"""

import logging

from lfp.reporting import progress as terminal
from lfp.reporting import tensorboard


def test_a_bar_is_in_the_log_at_its_end_and_on_its_way(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    for _ in terminal.Progress(range(4), desc="work"):
        pass
    assert [record.getMessage().split("|")[0] for record in caplog.records] == ["work: 100%"]
    caplog.clear()
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    with terminal.Progress(total=2, desc="work") as bar:
        bar.mininterval = 0
        bar.update()
        bar.refresh()
    assert {record.getMessage().split("|")[0] for record in caplog.records} == {"work:  50%"}


def test_nothing_is_tracked_unless_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv(tensorboard.FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    tensorboard.Tracker().add({"step": 1, "reward": 2.0})
    assert tensorboard.report_to() == "none"
    assert not list(tmp_path.iterdir())


def test_curves_are_written_as_events(monkeypatch, tmp_path):
    monkeypatch.setenv(tensorboard.FOLDER, str(tmp_path / "events"))
    tracker = tensorboard.Tracker()
    tracker.add({"step": 1, "reward": 2.0})
    tracker.add({"step": 2, "loss": 1.0, "note": "text"}, "features_8")
    tracker.close()
    assert tensorboard.report_to() == "tensorboard"
    [path] = (tmp_path / "events").iterdir()
    content = path.read_bytes()
    assert path.name.startswith("events.out.tfevents")
    assert b"reward" in content
    assert b"features_8/loss" in content
    assert b"note" not in content
