from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from miram.train.journal import journal


def test_who_watches_sees_every_epoch_at_once_and_but_once_after_a_restart(tmp_path):
    rows = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    watcher = EventAccumulator(str(tmp_path / "tensorboard"))

    def seen() -> list[int]:
        watcher.Reload()
        return [event.step for event in watcher.Scalars("loss")]

    with journal(tmp_path) as write:
        for epochs in (1, 2):
            write(rows[:epochs])
            assert seen() == [1, 2][:epochs]
    with journal(tmp_path) as write:
        write(rows)
        assert seen() == [1, 2, 3]
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n1,1.0\n2,0.5\n3,0.3333333333333333\n"
