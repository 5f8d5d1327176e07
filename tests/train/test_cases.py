import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plain_values import of_values
from safetensors.torch import load_file, save_file
from test_finetune import VALUES
from tiny_classifier import FOUR, SEEN, saved_classifier

from miram.cli import main
from miram.data import tasks
from miram.data.geometry import Box
from miram.data.own_images.table import Lesion
from miram.data.pictures.picture import Range
from miram.errors import MiramError
from miram.evaluate.cases import measure_cases
from miram.evaluate.metrics import evaluate
from miram.layout import Cell
from miram.predictions import Predictions, Question
from miram.recipe import Tuning
from miram.train.cases import Case, answer_cases, read_cases
from miram.train.classifiers import Lesions, resized_to
from miram.train.finetune import finetune
from miram.train.seen import Seen

MACHINE = {"accelerator": "cpu", "precision": "32-true", "threads": 1}
WHOLE = {**SEEN, "films": False}
DRAWS = {"resamples": 300, "seed": 0, "confidence": 0.95, "min_draws_share": 0.5}
OPTIONS = {"specificity": 0.9, "threshold": 0.5, "bins": 15}


def case(path, name="a", label=FOUR[0], patient="P1", box=None, mask="", **groups):
    return Case(Lesion(name, path.name, patient, label, "", box, mask), path.parent, groups)


@pytest.fixture
def model(tmp_path):
    """model(**seen): the file of a network that has seen such pictures."""

    def write(**seen):
        saved_classifier(tmp_path / "model.safetensors", seen={**WHOLE, **seen})
        return tmp_path / "model.safetensors"

    return write


@pytest.fixture
def picture(tmp_path):
    """picture(pixels, name): its file."""

    def write(pixels, name="one.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return write


def test_a_stored_network_gives_the_test_metrics_of_its_study_again(lesions, store_paths, tmp_path):
    files = lesions / "lesions.csv", lesions / "splits.csv"
    seen = {**WHOLE, "shape": "tight"}  # those crops are not square
    own = Lesions(*store_paths, *files, VALUES["task"], resized_to(VALUES["side"]))
    finetune(tmp_path / "run", own, None, of_values(Tuning, VALUES), seen=Seen(**seen))
    table = pd.read_csv(files[0], keep_default_na=False).merge(pd.read_csv(files[1])[["lesion_id", "split"]])
    own = pd.DataFrame({"image": table["lesion_id"] + ".png", "patient": table["patient_id"]})
    own["label"] = tasks.labels(table, "pathology_4class")
    own["split"] = table["split"].replace("validation", "train")
    own.to_csv(tmp_path / "table.csv", index=False)

    cases, left_out = read_cases(tmp_path / "table.csv", lesions / "crops")
    assert (len(cases), left_out) == (3, 9)
    found = answer_cases(tmp_path / "run" / "model.safetensors", cases, tmp_path / "predictions.csv", **MACHINE)
    stored = pd.read_parquet(tmp_path / "run" / "predictions.parquet").query("split == 'test'")
    probabilities = [f"prob_{name}" for name in FOUR]
    np.testing.assert_array_equal(found.table[probabilities], stored[probabilities])

    question = Question("pathology_4class", "finetune", 0, FOUR, None, None)
    answers = Predictions(question, found.table)
    figures = measure_cases(answers, [], tmp_path / "cases.csv", options=OPTIONS, positive=None, **DRAWS)
    figures = figures.rows.query("method == 'network'")
    cell = Cell("strict", "pathology_4class", "finetune", "mae", 0)
    evaluate(
        {cell: tmp_path / "run" / "predictions.parquet"},
        *(tmp_path / f"{name}.csv" for name in ("metrics", "differences", "variance")),
        **{**DRAWS, **OPTIONS, "power": 0.8, "compared": [], "reference": "mae", "majority": {cell[:2]: "BENIGN_MASS"}},
    )
    expected = pd.read_csv(tmp_path / "metrics.csv").query("split == 'test' and method == 'mae' and seed == 0")
    columns = ["value", "low", "high"]
    np.testing.assert_allclose(figures[columns].astype(float), expected[columns], atol=1e-6)
    assert figures["metric"].tolist() == expected["metric"].tolist()


def test_a_box_is_cut_as_a_lesion_of_a_film_and_one_picture_may_have_several(model, picture, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    path, boxes = picture(pixels), (Box(5, 10, 15, 30), Box(20, 40, 30, 50))
    cases = [case(path, f"{number}", box=box) for number, box in enumerate(boxes)]
    found = answer_cases(model(films=True, margin=0.1), cases, tmp_path / "boxes.csv", **MACHINE)
    cut = [(slice(0, 22), slice(8, 32)), (slice(19, 31), slice(39, 51))]  # square, and a tenth more on each side
    crops = [np.pad(pixels[cut[0]], ((2, 0), (0, 0))), pixels[cut[1]]]
    again = [case(picture(crop, f"{number}.png"), f"{number}") for number, crop in enumerate(crops)]
    expected = answer_cases(model(films=True), again, tmp_path / "crops.csv", **MACHINE)
    columns = [f"prob_{name}" for name in FOUR]
    np.testing.assert_array_equal(found.table[columns], expected.table[columns])
    assert len(found.table) == 2 and not found.aside


def test_what_cannot_be_used_is_set_aside_with_its_reason(model, picture, tmp_path):
    path = picture(np.zeros((40, 60), np.uint8))
    (tmp_path / "notes.png").write_text("no picture")
    cases = [
        case(path, "film"),
        case(path, "beyond", box=Box(50, 0, 60, 10)),
        case(tmp_path / "notes.png", "notes"),
        case(path, "good", box=Box(0, 0, 9, 9)),
    ]
    found = answer_cases(model(films=True), cases, tmp_path / "predictions.csv", **MACHINE)
    assert found.table["lesion_id"].tolist() == ["good"]
    assert "no crop of a lesion" in found.aside["film"] and "has 60 columns and 40 rows" in found.aside["beyond"]
    assert "cannot be decoded" in found.aside["notes"]
    of_crops = answer_cases(model(shape="whole"), cases, tmp_path / "crops.csv", **MACHINE)  # the archive's own
    assert of_crops.table["lesion_id"].tolist() == ["film"] and "no box can be cut" in of_crops.aside["good"]
    with pytest.raises(MiramError, match="None of the 3 cases can be used"):
        answer_cases(model(films=True), cases[:3], tmp_path / "none.csv", **MACHINE)


def test_grey_levels_are_those_of_training_and_of_other_kinds_of_files_those_of_the_cases(model, picture, tmp_path):
    dark, bright = np.full((8, 8), 700, np.uint16), np.full((8, 8), 4000, np.uint16)
    cases = [case(picture(dark, "dark.png"), "dark"), case(picture(bright, "bright.png"), "bright", patient="P2")]
    found = answer_cases(model(), cases, tmp_path / "predictions.csv", **MACHINE)
    assert found.seen.ranges == {"PNG, 16 bits": Range(0, 12)}
    known = answer_cases(model(ranges={"PNG, 16 bits": [0, 13]}), cases, tmp_path / "predictions.csv", **MACHINE)
    assert known.seen.ranges == {"PNG, 16 bits": Range(0, 13)}
    assert (found.table[f"prob_{FOUR[0]}"] != known.table[f"prob_{FOUR[0]}"]).all()


def test_labels_that_the_network_does_not_know_are_named(model, picture, tmp_path):
    path = picture(np.zeros((8, 8), np.uint8))
    cases = [case(path, "a", "BENIGN"), case(path, "b", "benign_mass"), case(path, "c", "BENIGN")]
    with pytest.raises(MiramError, match=r"label 'BENIGN' \(2\), 'benign_mass' \(1\); it has BENIGN_MASS, "):
        answer_cases(model(), cases, tmp_path / "predictions.csv", **MACHINE)


def test_a_network_that_does_not_tell_what_it_has_seen_is_refused(model, picture, tmp_path):
    path = model()
    told = {"encoder": {}, "pool": "mean", "classes": FOUR, "multi_label": False}
    saved = saved_classifier(path)
    told["encoder"] = saved.encoder.architecture
    save_file(load_file(path), path, {"miram_classifier": json.dumps(told)})
    with pytest.raises(MiramError, match="does not say how its training read pictures"):
        answer_cases(path, [case(picture(np.zeros((8, 8), np.uint8)))], tmp_path / "predictions.csv", **MACHINE)


def test_what_a_network_has_seen_comes_back_from_its_file(model):
    from miram.models.export import load_classifier

    seen = Seen(
        levels="image",
        ranges={"PNG, 16 bits": Range(-4, 3)},
        films=False,
        component="largest",
        shape="tight",
        margin=0.2,
        side_min=9,
    )
    path = model(**seen.told())
    assert Seen.of(load_classifier(path), path) == seen


@pytest.fixture
def hospital(tmp_path, monkeypatch):
    """Pictures and a table of another laboratory, with columns that group; the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    random, rows = np.random.default_rng(1), []
    for number in range(12):
        name = f"{number:02}.png"
        Image.fromarray(random.integers(0, 256, (20, 20), dtype=np.uint8)).save(tmp_path / "theirs" / name)
        rows.append((name, f"P{number // 2}", FOUR[number % 3], "CC" if number < 6 else "MLO", f"{40 + number}a"))
    rows += [("12.png", "P7", FOUR[0], "", "40a")]
    rows += [("13.png", "P7", FOUR[0], "", "60a")]
    (tmp_path / "theirs" / "12.png").write_text("no picture")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "theirs" / "13.png")
    pd.DataFrame(rows, columns=["image", "patient", "label", "view", "age"]).to_csv("theirs/cases.csv", index=False)
    saved_classifier(tmp_path / "model.safetensors", seen=WHOLE)
    return tmp_path


def test_the_command_measures_reports_and_groups(hospital, capsys):
    assert main(["test", "--network", "model.safetensors", "--table", "theirs/cases.csv"]) == 0
    said = capsys.readouterr().out
    predictions = pd.read_csv("tested/predictions.csv")
    assert len(predictions) == 13 and {"lesion_id", "patient_id", "label", "view", "age"} < set(predictions)
    metrics = pd.read_csv("tested/metrics.csv", keep_default_na=False).set_index(
        ["column", "group", "method", "metric"]
    )
    assert metrics.loc[("", "", "network", "accuracy"), "lesions"] == 13
    assert metrics.loc[("view", "CC", "network", "accuracy"), ["lesions", "patients"]].tolist() == [6, 3]
    assert metrics.loc[("view", "", "network", "accuracy"), "lesions"] == 1
    assert "age" not in metrics.index.get_level_values("column")
    for words in (
        "Research software, not a medical device",
        f"No case is of the class {FOUR[3]}",
        "13 lesions of 7 patients",
        "As in training, by the network's file: side 16 px, 3 channels, grey levels by the rule data",
        "Groups (exploratory)",
        "Column age has 13 values and is passed over",
        "## Set aside: 1",
        "calibration error",
    ):
        assert words in said.replace("\n", " "), words
    page = Path("tested/report.html").read_text()
    assert "<svg" in page and "not a medical device" in page and "<table>" in page


def test_a_table_whose_columns_are_those_of_the_predictions_is_refused(hospital, capsys):
    table = pd.read_csv("theirs/cases.csv").rename(columns={"view": "patient_id"})
    table.to_csv("theirs/cases.csv", index=False)
    assert main(["test", "--network", "model.safetensors", "--table", "theirs/cases.csv"]) == 1
    assert "have a column patient_id of their own" in capsys.readouterr().err


def test_a_table_without_a_test_split_is_refused(hospital, capsys):
    pd.read_csv("theirs/cases.csv").assign(split="train").to_csv("theirs/cases.csv", index=False)
    assert main(["test", "--network", "model.safetensors", "--table", "theirs/cases.csv"]) == 1
    assert "has no image of the split test" in capsys.readouterr().err


def test_a_folder_is_asked_about_file_by_file_and_what_cannot_be_read_is_counted(hospital, capsys):
    (hospital / "theirs" / "cases.csv").unlink()
    (hospital / "theirs" / "deep").mkdir()
    (hospital / "theirs" / "13.png").rename(hospital / "theirs" / "deep" / "13.png")
    (hospital / "theirs" / ".hidden").write_text("")
    asked = ["predict", "theirs", "--network", "model.safetensors"]
    assert main(asked) == 1
    out, err = capsys.readouterr()
    assert "1 files could not be used" in out and "not a medical device" in out
    assert "not predicted: 12.png" in err
    answers = pd.read_csv("predictions.csv", index_col="image")
    assert len(answers) == 14 and answers.loc["12.png", "note"].endswith("PGM.")
    assert answers.loc["12.png"].isna().sum() == 4 and "deep/13.png" in answers.index
    for name in ("00.png", "11.png"):
        assert main(["predict", f"theirs/{name}", "--network", "model.safetensors"]) == 0
        said = capsys.readouterr().out
        assert f"{100 * answers.loc[name, f'prob_{FOUR[1]}']:6.1f} %  {FOUR[1]}" in said
    (hospital / "theirs" / "12.png").unlink()
    assert main(asked) == 0
    assert main([*asked, "--box", "0", "0", "5"]) == 2
    capsys.readouterr()
    assert main([*asked, "--method", "mae", "--task", "view"]) == 2
    assert "--task, --method: these choose a network of this run" in capsys.readouterr().err
    (hospital / "empty").mkdir()
    assert main(["predict", "empty", "--network", "model.safetensors"]) == 1
    assert "There is no file in empty" in capsys.readouterr().err


def test_a_recipe_a_network_of_films_and_a_spreadsheets_dialect_go_together(hospital, capsys):
    folder = hospital / "all-mias"
    folder.mkdir()
    lines = []
    for number in range(1, 9):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"mdb{number:03}.pgm")
        lines.append(f"mdb{number:03} {'FGD'[number % 3]} CIRC {'BM'[number % 2]} {20 + number} 20 6")
    lines.append("mdb008 D CALC M 40 12 4")
    (folder / "Info.txt").write_text("\n".join(lines))
    saved_classifier(hospital / "model.safetensors")
    assert main(["recipe", "mini-mias", "all-mias", "--task", "pathology_4class"]) == 0
    Path("cases.csv").write_text(capsys.readouterr().out.replace(",", ";"), encoding="utf-16")
    assert main(["test", "--network", "model.safetensors", "--table", "cases.csv", "--folder", "all-mias"]) == 0
    said = capsys.readouterr().out
    assert "9 lesions of 4 patients: BENIGN_MASS 4, MALIGNANT_CALC 1, MALIGNANT_MASS 4" in said
    assert "of malignancy, or the mean of the classes" in said and "| dense-glandular | " in said
    assert pd.read_csv("tested/predictions.csv")["image"].value_counts()["mdb008.pgm"] == 2


def test_sensitivity_is_that_of_the_class_that_the_parameters_name_or_is_not_told(hospital, capsys):
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    table = pd.read_csv("theirs/cases.csv")
    encoder = saved_classifier(hospital / "model.safetensors", seen=WHOLE, classes=("cyst", "tumour", "scar", "none"))
    assert encoder.head.out_features == 4
    names = dict(zip(FOUR, ("cyst", "tumour", "scar", "none"), strict=True))
    table.assign(label=table["label"].map(names)).to_csv("theirs/cases.csv", index=False)
    asked = ["test", "--network", "model.safetensors", "--table", "theirs/cases.csv"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "| sensitivity " not in said.partition("## Calibration")[0]
    Path("params.yaml").write_text(text.replace("positive: null", "positive: tumour"))
    assert main(asked) == 0
    assert "that params.yaml fixes: of class tumour" in capsys.readouterr().out
