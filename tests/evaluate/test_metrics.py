import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score
from sklearn.preprocessing import label_binarize

from miram.errors import MiramError
from miram.evaluate.metrics import MAJORITY, METRICS, evaluate, scores
from miram.layout import Cell

STRICT = ("strict", "pathology_4class", "full")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_split(seed, lesions=60, classes=4):
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), generator.integers(classes, size=lesions - classes)])
    return truth, generator.dirichlet(np.ones(classes), lesions).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_equal_scikit_learn_on_random_input(seed):
    truth, probabilities = random_split(seed)
    one_hot = label_binarize(truth, classes=range(4))
    normalised = probabilities.astype(float) / probabilities.sum(axis=1, keepdims=True, dtype=float)
    found = scores(truth, probabilities)
    assert list(found) == list(METRICS)
    assert found["accuracy"] == accuracy_score(truth, probabilities.argmax(axis=1))
    assert found["macro_ap"] == average_precision_score(one_hot, probabilities, average="macro")
    assert found["micro_ap"] == average_precision_score(one_hot, probabilities, average="micro")
    assert found["macro_auc"] == pytest.approx(roc_auc_score(truth, normalised, multi_class="ovr", average="macro"))
    assert found["micro_auc"] == roc_auc_score(one_hot, probabilities, average="micro")


def test_macro_leaves_an_absent_class_out_and_micro_counts_what_it_was_given():
    truth, probabilities = random_split(1)
    probabilities = probabilities[truth != 2]
    truth = truth[truth != 2]
    one_hot = label_binarize(truth, classes=range(4))
    found = scores(truth, probabilities)
    present = [0, 1, 3]
    assert found["macro_ap"] == pytest.approx(
        np.mean([average_precision_score(one_hot[:, number], probabilities[:, number]) for number in present])
    )
    assert found["macro_auc"] == pytest.approx(
        np.mean([roc_auc_score(one_hot[:, number], probabilities[:, number]) for number in present])
    )
    assert found["micro_ap"] == average_precision_score(one_hot, probabilities, average="micro")
    assert found["micro_auc"] == roc_auc_score(one_hot, probabilities, average="micro")


def test_ties_give_chance_auc_prevalence_ap_and_the_first_class():
    truth = np.array([0, 0, 1, 2, 3, 3])
    found = scores(truth, np.full((6, 4), 0.25, dtype=np.float32))
    assert found == pytest.approx(
        {"accuracy": 2 / 6, "macro_ap": 1 / 4, "micro_ap": 1 / 4, "macro_auc": 0.5, "micro_auc": 0.5}
    )


def test_all_one_prediction_scores_its_class_share():
    truth = np.array([0, 1, 1, 1, 2, 3])
    one_hot = label_binarize(truth, classes=range(4))
    constant = np.tile(np.float32([0, 1, 0, 0]), (6, 1))
    found = scores(truth, constant)
    assert found["accuracy"] == 0.5
    assert found["macro_auc"] == 0.5
    assert found["micro_auc"] == roc_auc_score(one_hot, constant, average="micro")
    assert found["micro_ap"] == average_precision_score(one_hot, constant, average="micro")


def test_a_single_class_leaves_only_the_macro_auc_undefined():
    truth, (_, probabilities) = np.full(60, 3), random_split(2)
    found = scores(truth, probabilities)
    assert np.isnan(found.pop("macro_auc"))
    assert found["macro_ap"] == 1.0
    assert np.isfinite(list(found.values())).all()


def test_the_table_is_long_and_states_lesions_and_classes(study, tmp_path):
    files, _, _ = study
    facts = evaluate(files, tmp_path / "metrics.csv")
    table = pd.read_csv(tmp_path / "metrics.csv")
    names = ["protocol", "task", "mode", "method", "seed", "split", "metric", "value", "classes_present", "lesions"]
    assert list(table) == [*names, "note"]
    assert len(table) == (len(files) + 3) * 2 * len(METRICS)
    assert set(table.loc[table["split"] == "test", "lesions"]) == {24}
    assert set(table["classes_present"]) == {4}
    assert (
        (tmp_path / "metrics.csv")
        .read_text()
        .splitlines()[1]
        .startswith("strict,pathology_4class,full,from-scratch,0,test,accuracy,0.")
    )
    assert facts["cells"] == 18 and facts["missing_cells"] == []
    assert facts["lesions"]["paper/pathology_4class/full"] == {"test": 24, "validation": 5}


def test_the_majority_class_is_that_of_each_split(study, tmp_path):
    files, _, _ = study
    for file in files.values():
        table = pd.read_parquet(file)
        table.loc[table["split"] == "test", "label"] = ["BENIGN_CALC"] * 18 + ["BENIGN_MASS"] * 6
        table.to_parquet(file)
    evaluate(files, tmp_path / "metrics.csv")
    table = pd.read_csv(tmp_path / "metrics.csv")
    table = table[(table["protocol"] == "strict") & (table["mode"] == "full")]
    majority = table[(table["method"] == MAJORITY) & (table["metric"] == "accuracy")].set_index("split")
    assert majority["seed"].isna().all()
    assert majority["value"].to_dict() == pytest.approx({"test": 0.75, "validation": 0.4})
    assert "BENIGN_CALC" in majority.at["test", "note"]
    assert "MALIGNANT_CALC" in majority.at["validation", "note"]


def test_an_absent_class_and_an_undefined_value_are_named_in_the_note(predictions, tmp_path):
    file = tmp_path / "predictions.parquet"
    predictions(0, test_labels=(1,) * 8).to_parquet(file)
    evaluate({Cell(*STRICT, "mae", 0): file}, tmp_path / "metrics.csv")
    table = pd.read_csv(tmp_path / "metrics.csv", keep_default_na=False).query("method == 'mae' and split == 'test'")
    rows = table.set_index("metric")
    assert set(rows["classes_present"]) == {1}
    assert rows.at["macro_auc", "value"] == ""
    assert "macro_auc is undefined" in rows.at["macro_auc", "note"]
    assert "no test lesion of BENIGN_MASS, BENIGN_CALC, MALIGNANT_CALC" in rows.at["macro_ap", "note"]
    assert rows.at["accuracy", "note"] == ""


def test_a_missing_run_is_named_and_the_others_are_evaluated(study, tmp_path):
    files, _, _ = study
    files[Cell(*STRICT, "mae", 1)].unlink()
    facts = evaluate(files, tmp_path / "metrics.csv")
    assert facts["cells"] == 17
    assert facts["missing_cells"] == ["strict/pathology_4class/full/mae/seed-1"]


def test_without_any_run_nothing_is_written(tmp_path):
    with pytest.raises(MiramError, match="no predictions"):
        evaluate({Cell(*STRICT, "mae", 0): tmp_path / "absent.parquet"}, tmp_path / "metrics.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_rows_in_a_file_does_not_matter(study, tmp_path):
    files, _, _ = study
    evaluate(files, tmp_path / "a.csv")
    for number, file in enumerate(files.values()):
        pd.read_parquet(file).sample(frac=1, random_state=number).to_parquet(file)
    evaluate(files, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def drop_lesion(table):
    return table.iloc[1:]


def drop_class(table):
    return table.drop(columns="prob_BENIGN_MASS").query("label != 'BENIGN_MASS'")


def relabel(table):
    return table.assign(label=table["label"].iloc[::-1].to_numpy())


@pytest.mark.parametrize("change", [drop_lesion, drop_class, relabel])
def test_runs_on_other_lesions_labels_or_classes_are_refused(study, tmp_path, change):
    files, _, _ = study
    file = files[Cell(*STRICT, "mae", 1)]
    change(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(MiramError, match=r"full/mae/seed-1/predictions\.parquet.* differ"):
        evaluate(files, tmp_path / "metrics.csv")


def test_another_protocol_may_have_other_lesions(study, tmp_path):
    files, _, _ = study
    for cell, file in files.items():
        if cell.protocol == "paper":
            drop_lesion(pd.read_parquet(file)).to_parquet(file)
    facts = evaluate(files, tmp_path / "metrics.csv")
    lesions = {section: counts["test"] for section, counts in facts["lesions"].items()}
    assert lesions == {section: 23 if section.startswith("paper") else 24 for section in lesions}


def not_finite(table):
    table.loc[3, "prob_BENIGN_CALC"] = np.nan
    return table


def unknown_label(table):
    table.loc[3, "label"] = "NORMAL"
    return table


def repeated(table):
    return pd.concat([table, table.iloc[[3]]])


FAULTS = [
    (not_finite, "P_00003_LEFT_CC_1 has a probability that is not finite"),
    (unknown_label, "P_00003_LEFT_CC_1 has a label that is no class"),
    (repeated, "P_00003_LEFT_CC_1 has two rows"),
    (lambda table: table.drop(columns=["patient_id"]), "lacks the columns patient_id"),
    (lambda table: table.filter(regex="^(?!prob_)"), "lacks the columns prob_<CLASS>"),
    (lambda table: table.iloc[:0], "holds no lesion"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_damaged_predictions_name_the_file_and_the_lesion(predictions, tmp_path, damage, message):
    file = tmp_path / "predictions.parquet"
    damage(predictions(0)).to_parquet(file)
    with pytest.raises(MiramError, match=f"{file.name}.*{message}"):
        evaluate({Cell(*STRICT, "mae", 0): file}, tmp_path / "metrics.csv")


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    file = tmp_path / "predictions.parquet"
    file.write_bytes(b"PAR1 cut short")
    with pytest.raises(MiramError, match=r"predictions\.parquet cannot be read"):
        evaluate({Cell(*STRICT, "mae", 0): file}, tmp_path / "metrics.csv")
