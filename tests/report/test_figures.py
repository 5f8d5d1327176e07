from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from miram.errors import MiramError
from miram.evaluate.metrics import MAJORITY
from miram.looks import looks
from miram.report import figures
from miram.report.prediction import draw_prediction

LOOK = looks({"mae": "mae", "mocov3": "mocov3"})
draw_comparison = partial(figures.draw_comparison, look=LOOK, confidence=0.9)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, as matplotlib objects."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure))
    return saved


@pytest.fixture
def table():
    """Two methods and the majority class; the second method has no value."""
    return pd.DataFrame(
        {
            "task": "pathology_4class",
            "protocol": "strict",
            "mode": "finetune",
            "method": ["mae", "mocov3", MAJORITY],
            "accuracy_percent_mean": [55.0, None, 30.0],
            "accuracy_percent_low": [51.0, None, None],
            "accuracy_percent_high": [60.0, None, None],
            "macro_auc_percent_mean": [70.0, None, 50.0],
            "macro_auc_percent_low": [69.0, None, None],
            "macro_auc_percent_high": [72.0, None, None],
            "paper_accuracy_percent": [58.9, 60.2, None],
        }
    )


@pytest.fixture
def runs():
    rows = [("mae", seed, metric, 0.48 + 0.16 * seed) for seed in (0, 1) for metric in ("accuracy", "macro_auc")]
    table = pd.DataFrame([*rows, (MAJORITY, None, "accuracy", 0.3)], columns=["method", "seed", "metric", "value"])
    return table.assign(task="pathology_4class", protocol="strict", mode="finetune", pretrain_seed=0)


def save_arrays(path, two_scales=True):
    generator = np.random.default_rng(0)
    shapes = {"input": 8, "masked": 8, "lowres": 8} | ({"highres": 16, "target_highres": 16} if two_scales else {})
    np.savez(
        path, **{name: generator.integers(256, size=(5, side, side)).astype("uint8") for name, side in shapes.items()}
    )


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_the_papers_accuracy_is_drawn_for_the_paper_preset_only(drawn, table, runs, tmp_path, preset):
    draw_comparison(table, runs, tmp_path / "a.png", preset=preset)
    assert ("the paper's accuracy" in texts(drawn[0])) == (preset == "paper")
    assert ("DEMO" in texts(drawn[0])) == (preset == "demo")
    drawn_values = [value for line in drawn[0].axes[0].lines for value in line.get_xdata()]
    assert (58.9 in drawn_values) == (preset == "paper")


def test_each_protocol_has_its_panels_and_another_mode_none(drawn, table, runs, tmp_path):
    others = [table.assign(protocol="published"), table.assign(mode="knn"), table.assign(task="pathology")]
    leaky = runs.assign(protocol="published", value=runs["value"] + 0.01)
    draw_comparison(pd.concat([table, *others]), pd.concat([runs, leaky]), tmp_path / "a.png", preset="demo")
    assert [axes.get_title("left") for axes in drawn[0].axes] == ["protocol strict", "", "protocol published", ""]
    values = [{value for line in axes.lines for value in line.get_xdata()} for axes in drawn[0].axes]
    assert {48.0, 64.0} <= values[0] and not {48.0, 64.0} & values[2] and {49.0, 65.0} <= values[2]


def test_all_of_the_title_is_in_the_picture(drawn, table, runs, tmp_path):
    again = pd.concat([runs, runs.assign(pretrain_seed=1)])
    every = pd.concat([table, table.assign(protocol="published")])
    draw_comparison(every, pd.concat([again, runs.assign(protocol="published")]), tmp_path / "a.png", preset="small")
    (figure,) = drawn
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert "pre-trained 2 times" in figure._suptitle.get_text() and "pre-trained once" in figure._suptitle.get_text()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_each_seed_the_mean_the_majority_and_a_gap_are_drawn(drawn, table, runs, tmp_path):
    draw_comparison(table, runs, tmp_path / "a.png", preset="demo")
    values = [value for line in drawn[0].axes[0].lines for value in line.get_xdata()]
    assert {48.0, 64.0, 55.0, 30.0} <= set(values)
    (interval,) = drawn[0].axes[0].containers[0].lines[2][0].get_segments()[:1]
    assert interval[:, 0].tolist() == [51.0, 60.0]
    assert "90% interval" in texts(drawn[0])
    mean = drawn[0].axes[0].containers[0].lines[0]
    assert (mean.get_color(), mean.get_marker()) == (LOOK["mae"].colour, LOOK["mae"].marker)
    gaps = [text for text in drawn[0].findobj(mpl.text.Text) if text.get_text() == "no value"]
    assert [gap.get_position()[1] for gap in gaps] == [1, 1]


def test_a_two_scale_method_shows_both_predictions_and_a_demo_says_so(drawn, tmp_path):
    save_arrays(tmp_path / "two.npz")
    save_arrays(tmp_path / "one.npz", two_scales=False)
    for name in ("two", "one"):
        figures.draw_reconstructions(tmp_path / f"{name}.npz", tmp_path / "a.png", method=name, preset="demo")
    two, one = drawn
    assert len(two.axes) == 5 * figures.RECONSTRUCTION_ROWS
    assert len(one.axes) == 3 * figures.RECONSTRUCTION_ROWS
    assert "high-resolution\nprediction\n16 by 16 px" in texts(two)
    assert "by two" in texts(two)
    assert "DEMO" in texts(two)


def test_the_arrays_are_shown_as_they_are_under_their_titles(drawn, tmp_path):
    save_arrays(tmp_path / "two.npz")
    figures.draw_reconstructions(tmp_path / "two.npz", tmp_path / "a.png", method="m", preset="paper")
    with np.load(tmp_path / "two.npz") as arrays:
        for axes, name in zip(drawn[0].axes, figures.RECONSTRUCTION_COLUMNS, strict=False):
            assert axes.get_title().startswith(figures.RECONSTRUCTION_COLUMNS[name])
            assert (np.asarray(axes.images[0].get_array()) == arrays[name][0]).all()
            assert axes.images[0].get_clim() == (0, 255)


def test_png_bytes_do_not_depend_on_the_users_settings_and_hold_no_version(table, runs, tmp_path):
    save_arrays(tmp_path / "two.npz")
    for folder in ("a", "b"):
        draw_comparison(table, runs, tmp_path / folder / "comparison.png", preset="paper")
        figures.draw_reconstructions(
            tmp_path / "two.npz", tmp_path / folder / "reconstruction.png", method="m", preset="demo"
        )
        mpl.rcParams.update({"font.size": 20, "axes.facecolor": "red"})
    mpl.rcdefaults()
    for name in ("comparison.png", "reconstruction.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        with Image.open(tmp_path / "a" / name) as image:
            assert set(image.info) <= {"dpi"}


def test_damaged_reconstructions_name_the_file(tmp_path):
    file = tmp_path / "reconstructions.npz"
    draw = partial(figures.draw_reconstructions, file, tmp_path / "a.png", method="mae", preset="demo")
    save_arrays(file)
    for content in (b"", b"not an archive", file.read_bytes()[:200]):
        file.write_bytes(content)
        with pytest.raises(MiramError, match=r"reconstructions\.npz cannot be read"):
            draw()
    np.savez(file, input=np.zeros((1, 8, 8), "uint8"), masked=np.zeros((1, 8, 8), "uint8"))
    with pytest.raises(MiramError, match=r"reconstructions\.npz lacks lowres"):
        draw()


def test_the_names_of_a_prediction_are_no_formulas(tmp_path):
    zeros = np.zeros((8, 8), np.uint8), np.zeros((2, 2), np.float32)
    draw_prediction(*zeros, {"a $\\frac$": 0.5, "b": 0.5}, tmp_path / "a.png", title="$\\frac$.png", warning="demo")
    assert (tmp_path / "a.png").exists()
