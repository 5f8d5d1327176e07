import re
import warnings

import numpy as np
import pandas as pd
import pytest
from study_fixtures import write

from miram.errors import MiramError
from miram.evaluate.metrics import MAJORITY
from miram.evaluate.predictions import answers_of, most_frequent
from miram.evaluate.scores import METRICS
from miram.evaluate.statistics import interval, patient_resamples
from miram.evaluate.weighted import weighted_scores
from miram.layout import Cell
from miram.predictions import read_predictions

STRICT = ("strict", "pathology_4class", "finetune")
MARGINS = ("strict", "mass_margins", "finetune")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def of(table, section=STRICT, **values):
    """The rows of one section with these values."""
    for name, value in {**dict(zip(("protocol", "task", "mode"), section, strict=True)), **values}.items():
        table = table[table[name].isna() if value is None else table[name].isin(np.atleast_1d(value))]
    return table


def test_the_metrics_are_a_long_table_of_seeds_and_of_their_means(study, tmp_path, evaluated):
    files, _, _ = study
    facts, table, _ = evaluated(files, tmp_path)
    assert list(table) == [
        *("protocol", "task", "mode", "method", "seed", "pretrain_seed", "split"),
        *("metric", "value", "low", "high", "sd"),
        *("lesions", "classes_present", "note"),
    ]
    methods = 3
    assert len(table) == (len(files) + 3 * methods + 3) * 2 * len(METRICS)
    assert set(table.loc[table["split"] == "test", "lesions"]) == {24}
    assert set(table["classes_present"]) == {4}
    assert facts == {"cells": 18, "missing_cells": []}
    seeds, mean = (of(table, method="mae", split="test", metric="accuracy", seed=seed) for seed in ([0, 1], None))
    assert mean["value"].item() == pytest.approx(seeds["value"].mean(), abs=1e-6)
    assert mean["sd"].item() == pytest.approx(seeds["value"].std(ddof=1), abs=1e-6)
    assert seeds["sd"].isna().all()


def test_test_values_lie_in_their_intervals_and_those_of_more_networks_are_shorter(study, tmp_path, evaluated):
    _, table, _ = evaluated(study[0], tmp_path)
    test, validation = (table[table["split"] == split] for split in ("test", "validation"))
    test, alike = test[test["low"].notna()], test[test["low"].isna()]
    assert test["low"].between(0, test["value"]).all() and test["high"].between(test["value"], 1).all()
    assert set(alike["method"]) == {MAJORITY} and "accuracy" not in set(alike["metric"])  # its share of lesions varies
    assert alike["note"].str.contains("no interval where the value is the same in at least 95% of the draws").all()
    assert validation[["low", "high"]].isna().all(axis=None)
    rows = of(test, metric="brier", method="mae")
    widths = rows["high"] - rows["low"]
    assert widths[rows["seed"].isna()].item() < widths[rows["seed"].notna()].mean()


def test_the_interval_over_seeds_draws_the_same_patients_for_all_of_them(study, tmp_path, evaluated):
    draws, options = {"resamples": 50, "seed": 3}, {"specificity": 0.9, "threshold": 0.5, "bins": 10}
    table = evaluated(study[0], tmp_path, **draws)[1]
    cells = [Cell(*STRICT, "mae", seed) for seed in (0, 1)]
    tested = [read_predictions(study[0][cell], cell).of("test") for cell in cells]
    weights = patient_resamples(tested[0].table["patient_id"], **draws)
    answers = [answers_of(part) for part in tested]
    drawn = np.mean([weighted_scores(own, weights, ["brier"], **options)["brier"] for own in answers], axis=0)
    row = of(table, method="mae", split="test", metric="brier", seed=None).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(interval(row["value"], drawn, 0.95, 0.9), abs=1e-6)


def test_the_files_alone_give_every_number_again_identically(study, tmp_path, evaluated):
    for folder in ("a", "b"):
        evaluated(study[0], tmp_path / folder)
    for name in ("metrics.csv", "differences.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_differences_are_the_references_less_each_other_methods_on_common_seeds(study, tmp_path, evaluated):
    _, table, differences = evaluated(study[0], tmp_path)
    own = of(differences, metric="accuracy")
    assert own["first"].tolist() == ["mae", "mae"]
    assert own["second"].tolist() == ["from-scratch", "miram-linformer"]
    by_seed = of(table, split="test", metric="accuracy").query("seed.notna()").set_index(["method", "seed"])["value"]
    gains = by_seed["mae"] - by_seed["miram-linformer"]
    row = own.iloc[1]
    assert (row["difference"], row["sd"]) == pytest.approx((gains.mean(), gains.std(ddof=1)), abs=1e-6)
    assert (row["seeds"], row["lesions"], row["patients"]) == (2, 24, 12)
    assert row["corrected_low"] < row["low"] < row["difference"] < row["high"] < row["corrected_high"]
    assert row["p_holm"] >= row["p_value"] > 0
    assert set(differences["metric"]) == {"accuracy", "macro_auc"}
    assert own["lesions_needed"].notna().all() and of(differences, metric="macro_auc")["lesions_needed"].isna().all()


def test_equal_answers_differ_by_nothing(study, tmp_path, evaluated):
    files, _, _ = study
    for seed in (0, 1):
        files[Cell(*STRICT, "miram-linformer", seed)] = files[Cell(*STRICT, "mae", seed)]
    row = of(evaluated(files, tmp_path)[2], metric="accuracy", second="miram-linformer").iloc[0]
    assert row[["difference", "sd"]].eq(0).all()
    assert (
        row[["low", "high", "corrected_low", "corrected_high"]].isna().all()
    )  # in every draw the same: nothing is told
    assert (row["p_value"], row["design_effect"]) == (1, 1)
    assert np.isnan(row["lesions_needed"])


def test_one_test_patient_gives_values_without_an_interval_and_says_so(study, tmp_path, evaluated):
    files, _, _ = study
    for file in files.values():
        pd.read_parquet(file).assign(patient_id="P_00000").to_parquet(file)
    _, table, differences = evaluated(files, tmp_path)
    test = table[table["split"] == "test"]
    assert test["value"].notna().all() and test[["low", "high"]].isna().all(axis=None)
    assert test["note"].str.contains("no interval: all test lesions are of one patient").all()
    assert not table.loc[table["split"] == "validation", "note"].str.contains("no interval", na=False).any()
    assert differences["difference"].notna().all() and (differences["p_value"] == 1).all()
    unknown = ["low", "high", "corrected_low", "corrected_high", "design_effect", "lesions_needed"]
    assert differences[unknown].isna().all(axis=None)
    assert differences["note"].str.contains("of one patient").all()


def test_a_class_of_one_patient_is_named_and_draws_without_a_value_leave_no_interval(study, tmp_path, evaluated):
    files, _, _ = study
    for file in files.values():
        table = pd.read_parquet(file)
        table.loc[table["label"] == "BENIGN_CALC", "patient_id"] = "P_99999"
        malignant = table["label"].str.startswith("MALIGNANT")
        table.loc[malignant, "patient_id"] = "P_88888"
        table.to_parquet(file)
    _, table, _ = evaluated(files, tmp_path)
    rows = of(table, method="mae", split="test", seed=0).set_index("metric").fillna({"note": ""})
    named = "all test lesions of MALIGNANT_MASS, BENIGN_CALC, MALIGNANT_CALC are of one patient each"
    assert {metric for metric in rows.index if named in rows.at[metric, "note"]} == {
        *("balanced_accuracy", "macro_ap", "macro_auc", "sensitivity")
    }
    assert re.search(r"no interval: \d+ of 100 draws of patients have no sensitivity", rows.at["sensitivity", "note"])
    assert np.isnan(rows.at["sensitivity", "low"]) and rows.at["sensitivity", "value"] >= 0
    assert rows.at["accuracy", "note"] == "" and rows.at["accuracy", "low"] < rows.at["accuracy", "high"]


def test_the_majority_class_is_that_of_the_training_lesions_in_every_split(study, tmp_path, evaluated):
    files, _, _ = study
    for file in files.values():
        table = pd.read_parquet(file)
        table.loc[table["split"] == "test", "label"] = ["BENIGN_CALC"] * 18 + ["BENIGN_MASS"] * 6
        table.to_parquet(file)
    table = evaluated(files, tmp_path, majority={own[:2]: "BENIGN_MASS" for own in files})[1]
    table = table[(table["protocol"] == "strict") & (table["mode"] == "finetune")]
    majority = table[(table["method"] == MAJORITY) & (table["metric"] == "accuracy")].set_index("split")
    assert majority["seed"].isna().all()
    assert majority["value"].to_dict() == pytest.approx({"test": 0.25, "validation": 0.2})
    assert majority["note"].str.startswith("always answers BENIGN_MASS, the most frequent class of the training").all()


def test_of_labels_that_are_as_frequent_the_first_in_the_order_of_the_classes_is_taken():
    assert most_frequent(["b", "a", "c", "a", "b"], ("c", "b", "a"), None) == "b"
    assert most_frequent(["b-a", "a", "c"], ("c", "b", "a"), "-") == "c"


def test_an_absent_class_and_an_undefined_value_are_named_in_the_note(predictions, tmp_path, evaluated):
    file, cell = tmp_path / "predictions.parquet", Cell(*STRICT, "mae", 0)
    write(file, cell, predictions(0, test_labels=(1,) * 8))
    table = evaluated({cell: file}, tmp_path)[1].fillna({"note": ""})
    rows = of(table, method="mae", seed=0, split="test").set_index("metric")
    assert set(rows["classes_present"]) == {1}
    assert np.isnan(rows.at["macro_auc", "value"])
    assert "macro_auc is undefined" in rows.at["macro_auc", "note"]
    assert "no test lesion of BENIGN_MASS, BENIGN_CALC, MALIGNANT_CALC" in rows.at["macro_ap", "note"]
    assert rows.at["accuracy", "note"] == ""


def test_a_missing_run_is_named_and_the_others_are_evaluated(study, tmp_path, evaluated):
    files, _, _ = study
    files[Cell(*STRICT, "miram-linformer", 1)] = None  # no record
    for seed in (0, 1):
        files[Cell(*STRICT, "from-scratch", seed)].unlink()
    facts, table, differences = evaluated(files, tmp_path)
    assert facts["cells"] == 15
    assert facts["missing_cells"] == [
        *(f"strict/pathology_4class/finetune/from-scratch/seed-{seed}" for seed in (0, 1)),
        "strict/pathology_4class/finetune/miram-linformer/seed-1",
    ]
    gap = of(table, method="from-scratch", split="test", metric="accuracy").iloc[0]
    assert gap["note"] == "no test predictions of seed 0; no test predictions of seed 1"
    assert gap[["value", "low", "high", "lesions"]].isna().all()
    mean = of(table, method="miram-linformer", split="test", metric="accuracy", seed=None).iloc[0]
    assert mean["note"] == "no test predictions of seed 1" and mean["value"] > 0
    none, one = (row for _, row in of(differences, metric="accuracy").iterrows())
    assert none["seeds"] == 0 and none[["difference", "low", "p_value"]].isna().all()
    assert "seed 0 lacks predictions of one of them; seed 1" in none["note"]
    assert one["seeds"] == 1 and one["p_value"] == one["p_holm"] and np.isnan(one["corrected_low"])
    assert one["note"] == "seed 1 lacks predictions of one of them"


def test_a_section_without_any_run_is_a_gap_and_the_others_are_evaluated(study, tmp_path, evaluated):
    files, _, _ = study
    evaluated({cell: None if cell.protocol == "published" else file for cell, file in files.items()}, tmp_path)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert of(table, ("published", *STRICT[1:]))["value"].isna().all()
    assert of(table)["value"].notna().all()


def test_multi_label_files_are_measured_and_an_absent_class_is_named(tmp_path, evaluated):
    labels = ["ILL_DEFINED", "ILL_DEFINED-SPICULATED", "SPICULATED", "CIRCUMSCRIBED", "CIRCUMSCRIBED", "SPICULATED"]
    table = pd.DataFrame({"lesion_id": list("abcdef"), "patient_id": list("112233"), "split": "test", "label": labels})
    classes = ["ILL_DEFINED", "CIRCUMSCRIBED", "SPICULATED", "OBSCURED"]
    own = pd.DataFrame({f"prob_{name}": [0.9 if name in label else 0.2 for label in labels] for name in classes})
    own.loc[5, "prob_ILL_DEFINED"] = 0.6
    cells = {Cell(*MARGINS, "mae", 0): tmp_path / "predictions.parquet"}
    for cell, path in cells.items():
        write(path, cell, table.join(own), "-")
    metrics = evaluated(cells, tmp_path)[1]
    rows = of(metrics, MARGINS, method="mae", seed=0).set_index("metric")
    assert rows.at["accuracy", "value"] == pytest.approx(5 / 6, abs=1e-6)
    assert rows.at["macro_auc", "value"] == 1
    assert "no test lesion of OBSCURED: means over classes are over 3" in rows.at["macro_ap", "note"]
    majority = of(metrics, MARGINS, method=MAJORITY, metric="accuracy").iloc[0]
    assert majority["value"] == pytest.approx(2 / 6, abs=1e-6)
    assert "CIRCUMSCRIBED" in majority["note"]


def test_without_any_run_nothing_is_written(tmp_path, evaluated):
    with pytest.raises(MiramError, match="no predictions"):
        evaluated({Cell(*STRICT, "mae", 0): tmp_path / "absent.parquet"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_rows_in_a_file_does_not_matter(study, tmp_path, evaluated):
    files, _, _ = study
    evaluated(files, tmp_path / "a")
    for number, file in enumerate(files.values()):
        pd.read_parquet(file).sample(frac=1, random_state=number).to_parquet(file)
    evaluated(files, tmp_path / "b")
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def drop_lesion(table):
    return table.iloc[1:]


def drop_class(table):
    table.attrs["classes"].remove("BENIGN_MASS")
    return table.drop(columns="prob_BENIGN_MASS").query("label != 'BENIGN_MASS'")


def relabel(table):
    return table.assign(label=table["label"].iloc[::-1].to_numpy())


@pytest.mark.parametrize("change", [drop_lesion, drop_class, relabel])
def test_runs_on_other_lesions_labels_or_classes_are_refused(study, tmp_path, evaluated, change):
    files, _, _ = study
    file = files[Cell(*STRICT, "mae", 1)]
    change(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(MiramError, match=r"finetune/mae/seed-1/predictions\.parquet.* differ"):
        evaluated(files, tmp_path)


def test_another_protocol_may_have_other_lesions(study, tmp_path, evaluated):
    files, _, _ = study
    for cell, file in files.items():
        if cell.protocol == "published":
            drop_lesion(pd.read_parquet(file)).to_parquet(file)
    table = evaluated(files, tmp_path)[1].query("split == 'test'")
    assert table.groupby("protocol")["lesions"].unique().map(list).to_dict() == {"published": [23], "strict": [24]}


def not_finite(table):
    table.loc[3, "prob_BENIGN_CALC"] = np.nan
    return table


def unknown_label(table):
    table.loc[3, "label"] = "NORMAL"
    return table


def repeated(table):
    return pd.concat([table, table.iloc[[3]]])


def told(table, **changed):
    table.attrs |= changed
    return table


FAULTS = [
    (not_finite, "P_00003_LEFT_CC_1 has a probability that is not between 0 and 1"),
    (unknown_label, "P_00003_LEFT_CC_1 has a label that is not a class"),
    (repeated, "P_00003_LEFT_CC_1 has two rows"),
    (lambda table: table.drop(columns=["patient_id"]), "its columns and its metadata differ in patient_id"),
    (lambda table: table.filter(regex="^(?!prob_)"), "metadata differ in prob_BENIGN_CALC, prob_BENIGN_MASS, "),
    (lambda table: table.assign(prob_NORMAL=0.0), "its columns and its metadata differ in prob_NORMAL"),
    (lambda table: table.iloc[:0], "holds no lesion"),
    (lambda table: told(table, task="pathology"), "says that its task is pathology, not pathology_4class"),
    (lambda table: told(table, mode="knn"), "says that its mode is knn, not finetune"),
    (lambda table: told(table, seed=1), "says that its seed is 1, not 0"),
    (lambda table: pd.DataFrame(table.to_dict("list")), "has no valid metadata of its cell: 'classes'"),
    (lambda table: told(table, epochs=1), "has no valid metadata of its cell: .*epochs"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_damaged_predictions_name_the_file_and_the_lesion(predictions, tmp_path, evaluated, damage, message):
    file, cell = tmp_path / "predictions.parquet", Cell(*STRICT, "mae", 0)
    write(file, cell, predictions(0))
    damage(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(MiramError, match=f"{file.name}.*{message}"):
        evaluated({cell: file}, tmp_path)


def test_a_file_that_is_not_parquet_is_named(tmp_path, evaluated):
    file = tmp_path / "predictions.parquet"
    file.write_bytes(b"PAR1 cut short")
    with pytest.raises(MiramError, match=r"predictions\.parquet cannot be read"):
        evaluated({Cell(*STRICT, "mae", 0): file}, tmp_path)


def test_sensitivity_is_measured_of_the_positive_class_alone_and_of_none_without(study, tmp_path, evaluated):
    files, _, _ = study
    at = {"method": "mae", "split": "test", "metric": "sensitivity"}
    (by_default, other, none) = (
        of(evaluated(files, tmp_path, **named)[1], **at)
        for named in ({}, {"positive": ["BENIGN_CALC"]}, {"positive": []})
    )
    assert other["value"].notna().all() and not other["value"].reset_index(drop=True).equals(
        by_default["value"].reset_index(drop=True)
    )
    assert none["value"].isna().all() and none[["low", "high"]].isna().all(axis=None)
    assert (none["note"] == "sensitivity is not measured: sources.images.positive names no class").all()
