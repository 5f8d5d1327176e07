import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import time

import pytest

from miram.errors import MiramError
from miram.files import atomic_path, files_below, sole_writer


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    final = tmp_path / "table.csv"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MiramError, match=r"file/table\.csv cannot be written"),
        atomic_path(tmp_path / "file" / "table.csv"),
    ):
        pass


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(MiramError, match=r"table\.csv cannot be written: No space left"),
        atomic_path(tmp_path / "table.csv"),
    ):
        raise OSError(28, "No space left on device")


def test_a_fault_of_a_file_that_is_read_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "table.csv"):
        (tmp_path / "absent.csv").read_text()


def _hold(folder, entered):
    with sole_writer(folder, "crops"):
        entered.set()
        time.sleep(600)  # until it is killed


def test_a_second_writer_waits_and_a_killed_one_leaves_no_lock(tmp_path, capfd, wait_until):
    spawn = multiprocessing.get_context("spawn")
    entered = spawn.Event()
    first = spawn.Process(target=_hold, args=(tmp_path, entered))
    first.start()
    assert entered.wait(120)
    second_entered = spawn.Event()
    second = spawn.Process(target=_hold, args=(tmp_path, second_entered))
    second.start()
    said = []
    wait_until(lambda: said.append(capfd.readouterr().err) or f"waiting for process {first.pid}," in "".join(said))
    assert not second_entered.is_set()
    os.kill(first.pid, signal.SIGKILL)
    assert second_entered.wait(120)
    second.kill()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_a_stage_works_on_and_says_what_to_avoid(tmp_path, capsys, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", lambda *_: refuse(number))
    with sole_writer(tmp_path, "crops"):
        pass
    said = capsys.readouterr().err
    assert f"warning: the file system of {tmp_path} has no locks" in said and len(said.splitlines()) == 1


def test_a_lock_that_fails_otherwise_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: refuse(errno.EIO))
    with pytest.raises(MiramError, match="Input/output error"), sole_writer(tmp_path, "crops"):
        pass


def refuse(number):
    raise OSError(number, os.strerror(number))


def test_a_disk_that_takes_no_number_of_the_writer_is_named(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(MiramError, match=f"{tmp_path} cannot be written"), sole_writer(tmp_path, "crops"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_with_links_to_itself_has_each_file_once(tmp_path):
    for name in ("b/c/two.png", "one.png", ".hidden/three.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "four.png").write_text("")
    for link, target in {"root/self": ".", "root/b/up": "..", "root/other": "../elsewhere", "root/same": "b"}.items():
        (tmp_path / link).symlink_to(target)
    found = [path.relative_to(tmp_path / "root").as_posix() for path in files_below(tmp_path / "root")]
    assert found == ["b/c/two.png", "one.png", "other/four.png"]


def test_the_old_file_is_replaced_as_a_whole_and_never_written_over(tmp_path):
    final = tmp_path / "table.csv"
    final.write_text("old")
    with open(final) as reader:
        with atomic_path(final) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert final.read_text() == "new"
