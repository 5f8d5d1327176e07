"""Whole runs that differ in one thing, as `miram compare` sees them."""

import re
import shutil

import pytest
from test_pipeline import BIN, edit, finished, run, small_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished project, small, with two seeds."""
    folder = small_project(tmp_path_factory.mktemp("first") / "project")
    edit(folder, lambda document: document["presets"]["demo"]["finetune"].update(seeds=[0, 1]))
    finished(folder)
    return folder


@pytest.fixture
def compared(first, tmp_path):
    """compared(change): what `miram compare` says of the first run and of one after that change, and its exit code."""

    def compare(change, again=True):
        other = shutil.copytree(first, tmp_path / "project", symlinks=True)
        change(other)
        if again:
            finished(other)
        done = run(other, [BIN / "miram", "compare", first / "results/demo", "results/demo"])
        return done.returncode, done.stdout + done.stderr

    return compare


def all_methods(said, page):
    """Whether the page says this of all methods."""
    return re.search(rf"\b(\d+) of \1 methods {said}", page) is not None


def test_the_same_run_is_the_same_to_the_last_digit(compared):
    code, page = compared(lambda folder: None)
    assert code == 0 and all_methods("the same, to the last digit", page)
    assert page.rstrip().endswith("):\n  not recorded by either: commit")  # the copy is no clone


def test_one_thread_more_is_named_and_moves_no_number_that_the_tables_print(compared):
    code, page = compared(lambda f: edit(f, lambda d: d["presets"]["demo"]["compute"].update(threads=2)))
    assert code == 0 and "agrees with" in page.splitlines()[0]
    assert "parameter threads (" in page and "torch's threads: 1 against 2" in page


def test_other_seeds_are_named_and_agree_within_the_intervals(compared):
    code, page = compared(lambda f: edit(f, lambda d: d["presets"]["demo"]["finetune"].update(seeds=[2, 3])))
    assert code == 0 and all_methods("within their intervals", page)
    assert "parameter seed (finetune): 0, 1 against 2, 3" in page


def test_another_lock_is_named_and_moves_nothing(compared):
    def relock(folder):
        lock = folder / "requirements.lock"
        lock.write_text(lock.read_text() + "# resolved anew\n")

    code, page = compared(relock)
    assert code == 0 and all_methods("the same, to the last digit", page)
    assert "lock: " in page


def test_an_edited_number_is_found_by_the_crate_of_its_folder(compared):
    def edited(folder):
        path = folder / "results/demo/metrics.csv"
        path.write_text(path.read_text().replace("0.4", "0.5", 1))

    code, page = compared(edited, again=False)
    assert code == 1 and "disagrees with its own crate" in page
