import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_fixtures import write

from miram.errors import MiramError
from miram.evaluate.markdown import LINE_WIDTH, aligned
from miram.evaluate.metrics import MAJORITY
from miram.layout import TRIVIAL, TRIVIAL_MODE, Cell
from miram.report.table import comparison, write_set_aside

PAPER = Path(__file__).parents[2] / "workflow" / "resources" / "paper.csv"
TASK = "pathology_4class"
RESULTS = Path("results")
TABLES = RESULTS / "metrics.csv", RESULTS / "differences.csv"


@pytest.fixture
def compare(evaluated):
    """Measure and compare a study, in the working folder."""

    def run(study, preset="demo", logs=None, **own):
        files, pretrain_records, records = study
        evaluated(files, RESULTS, **({"positive": own["positive"]} if own else {}))
        values = {"preset": preset, "confidence": 0.95, "specificity": 0.9, **own}
        values["efforts"], values["starts"] = {}, {"from-scratch": "no pre-training"}
        values["kinds"] = {cell.method: cell.method for cell in records}
        return comparison(*TABLES, PAPER, pretrain_records, records, logs or {}, RESULTS, **values)

    return run


def read_csv(protocol="strict", mode="finetune"):
    table = pd.read_csv(RESULTS / "comparison.csv", keep_default_na=False, dtype=str)
    return table[(table["protocol"] == protocol) & (table["mode"] == mode)].set_index("method")


def cell(method, seed):
    return Cell("strict", TASK, "finetune", method, seed)


def read_md():
    return (RESULTS / "comparison.md").read_text(encoding="utf-8")


def test_the_papers_figures_are_those_of_the_abstract_and_marked():
    paper = pd.read_csv(PAPER)
    assert list(paper) == ["method", "task", "metric", "value", "unit", "source", "status"]
    assert set(paper["task"]) == {TASK}
    assert paper["source"].notna().all()
    known, unknown = paper[paper["value"].notna()], paper[paper["value"].isna()]
    assert dict(zip(known["method"], known["value"], strict=True)) == {
        "mae": 58.9,
        "mocov3": 60.2,
        "miram-nystrom": 61.0,
    }
    assert set(known["status"]) == {"inferred"}
    by_status = unknown.groupby("status")["method"].agg(set)
    assert by_status["unknown"] == {"miram-full", "miram-linformer", "miram-performer"}
    assert by_status["ours"] == {"miram-nystrom-112", "mae-224"}  # rows that the paper does not have
    assert set(unknown["status"]) == {"unknown", "ours"}


def test_a_row_holds_mean_and_sample_deviation_over_the_seeds_of_the_test_split(compare, study):
    compare(study)
    values = pd.read_csv(RESULTS / "metrics.csv").query("method == 'mae' and split == 'test' and metric == 'macro_auc'")
    values = values.query("protocol == 'strict' and mode == 'finetune' and seed.notna()")
    row = read_csv().loc["mae"]
    assert float(row["macro_auc_percent_mean"]) == pytest.approx(100 * values["value"].mean(), abs=1e-4)
    assert float(row["macro_auc_percent_sd"]) == pytest.approx(100 * np.std(values["value"], ddof=1), abs=1e-4)
    assert (row["seeds"], row["test_lesions"], row["classes_present"]) == ("2", "24", "4")


def test_intervals_are_those_of_the_metrics_beside_the_papers_figure(compare, study):
    compare(study)
    metrics = pd.read_csv(RESULTS / "metrics.csv").query("method == 'mae' and split == 'test' and seed.isna()")
    value, low, high = (
        100 * metrics.query("protocol == 'strict' and mode == 'finetune'")[["value", "low", "high"]]
    ).iloc[0]
    line = next(line for line in read_md().splitlines() if line.startswith("| mae"))
    assert f"| {value:.1f} [{low:.1f}, {high:.1f}] ± " in line and line.endswith("| 58.9 (inferred)   |")


def test_the_latex_has_rows_of_equal_length_and_no_sign_that_latex_would_read(compare, study):
    compare(study)
    lines = (RESULTS / "comparison.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith("\\\\") and "multicolumn" not in line]
    assert len(rows) == 1 + 3 * 4 and {line.count("&") for line in rows} == {6}
    assert "\\begin{tabular}{lrrrrrr}" in lines and lines[-1] == "\\end{tabular}"
    assert not re.search(r"(?<!\\)[%_#±]", "".join(line for line in lines if not line.startswith("%")))


def test_rows_are_the_methods_in_their_order_and_the_majority_class(compare, study):
    compare(study)
    table = read_csv()
    assert list(table.index) == ["from-scratch", "mae", "miram-linformer", MAJORITY]
    assert table.at[MAJORITY, "accuracy_percent_mean"] == "25.0000"
    assert table.at[MAJORITY, "seeds"] == "0"
    assert table.at[MAJORITY, "notes"].startswith("always answers BENIGN_MASS")


def test_trivial_classifiers_are_rows_of_every_section_and_are_told_of_above_the_tables(compare, study):
    files, _, _ = study
    for protocol in ("strict", "published"):
        for method in TRIVIAL:
            own = Cell(protocol, TASK, TRIVIAL_MODE, method, 0)
            files[own] = Path("runs", f"{method}-{protocol}.parquet")
            section = next(cell for cell in files if cell.protocol == protocol)
            write(files[own], own, pd.read_parquet(files[section]))
    compare(study)
    for table in (read_csv(), read_csv("published"), read_csv(mode="knn")):
        assert list(table.index) == ["from-scratch", "mae", "miram-linformer", *TRIVIAL, MAJORITY]
        assert set(table.loc[[*TRIVIAL], "seeds"]) == {"0"}
    text = read_md()
    said = " ".join(text[: text.index("## Task")].split())
    assert "A classifier that sees of a crop only its size, trivial-size, gets" in said
    assert re.search("The most accurate fine-tuned network, [a-z-]+, cannot be told from it: [+-]", said)


def test_a_row_names_its_records_and_what_pretraining_cost(compare, study):
    compare(study)
    row = read_csv().loc["mae"]
    assert row["pretrain_record"] == "runs/strict/mae/record.json"
    runs = "runs/strict/pathology_4class/finetune/mae"
    assert row["finetune_records"] == f"{runs}/seed-0/record.json; {runs}/seed-1/record.json"
    assert read_csv(protocol="published").at["mae", "pretrain_record"] == "runs/published/mae/record.json"
    assert row["pretrain_parameters"] == "2500000"
    assert row["pretrain_seconds"] == "61.0000"
    assert row["pretrain_peak_memory_mib"] == "3.0000"
    assert row["pretrain_peak_memory_kind"] == "RSS"
    assert read_csv().at["from-scratch", "notes"] == "no pre-training"


def test_a_row_says_at_which_learning_rate_and_whether_more_epochs_may_help(compare, study, write_record):
    for seed, epoch in ((0, 95), (1, 40)):
        for method in ("mae", "from-scratch"):
            write_record(study[2][cell(method, seed)], lr=1e-4, best_epoch=epoch, epochs=100)
    compare(study)
    assert read_csv().at["mae", "finetune_lr"] == "0.0001"
    rising = "the validation score was best in epoch 40, 95 of 100: 1 of 2 still rose at the end, more epochs may help"
    assert read_csv().at["from-scratch", "notes"] == f"no pre-training; {rising}"
    assert read_csv().at["mae", "notes"].startswith(rising)
    write_record(study[2][cell("from-scratch", 0)], lr=1e-4, best_epoch=41, epochs=100)
    compare(study)
    assert read_csv().at["from-scratch", "notes"] == "no pre-training"


def test_the_papers_figure_stands_only_at_its_method_and_task(compare, study):
    compare(study)
    table = read_csv()
    assert table["paper_accuracy_percent"].to_dict() == {
        **{"from-scratch": "", "mae": "58.9000", "miram-linformer": "", MAJORITY: ""}
    }
    assert table["paper_status"].to_list() == ["", "inferred", "unknown", ""]
    assert "58.9 (inferred)" in read_md()
    assert set(read_csv(mode="knn")["paper_accuracy_percent"]) == {""}
    other = [{Cell(c[0], "pathology", *c[2:]): value for c, value in part.items()} for part in (study[0], study[2])]
    for cell, file in other[0].items():
        write(file, cell, pd.read_parquet(file))
    compare((other[0], study[1], other[1]))
    assert set(read_csv()["paper_accuracy_percent"]) == {""}


def test_both_protocols_have_their_table_the_first_one_first_and_the_modes_below(compare, study):
    compare(study)
    headings = [line for line in read_md().splitlines() if line.startswith("## Task")]
    assert headings == [
        "## Task pathology_4class, protocol strict: fine-tuning of the whole network",
        "## Task pathology_4class, protocol published: fine-tuning of the whole network",
        "## Task pathology_4class, protocol strict: nearest neighbours among frozen features",
    ]
    values = [read_csv(protocol).at["mae", "accuracy_percent_mean"] for protocol in ("strict", "published")]
    assert values[0] != values[1] and all(f"{float(value):.1f} [" in read_md() for value in values)


def test_a_run_without_predictions_keeps_its_row_and_names_the_gap_and_the_log(compare, study):
    files, pretrain_records, records = study
    for run in (("mae", 0), ("mae", 1), ("miram-linformer", 1)):
        files[cell(*run)].unlink()
    pretrain_records["strict", "mae"][0].unlink()
    facts = compare(
        study, logs={pretrain_records["strict", "mae"][0]: "mae.log", records[cell("mae", 1)]: "seed-1.log"}
    )
    table = read_csv()
    assert table.at["mae", "accuracy_percent_mean"] == ""
    assert table.at["mae", "seeds"] == "0"
    gaps = "no test predictions of seed 0; no test predictions of seed 1; runs/strict/mae/record.json is missing"
    gaps += "; did not finish: see mae.log; did not finish: see seed-1.log"
    assert table.at["mae", "notes"] == facts["notes"]["strict/pathology_4class/finetune/mae"] == gaps
    assert table.at["miram-linformer", "seeds"] == "1"
    assert table.at["miram-linformer", "accuracy_percent_mean"] != ""
    assert table.at["miram-linformer", "accuracy_percent_sd"] == ""
    assert table.at["miram-linformer", "finetune_records"] == str(study[2][cell("miram-linformer", 0)])
    assert "mae (pathology_4class, strict, finetune): no test predictions of seed 0" in read_md()


def test_a_record_that_is_gone_is_not_named_as_a_source(compare, study):
    study[2][cell("mae", 1)].unlink()
    compare(study)
    row = read_csv().loc["mae"]
    assert row["finetune_records"] == str(study[2][cell("mae", 0)])
    assert row["notes"] == f"{study[2][cell('mae', 1)]} is missing"


def test_a_split_without_test_lesions_still_makes_a_table(compare, study):
    files, _, _ = study
    for file in files.values():
        pd.read_parquet(file).query("split == 'validation'").to_parquet(file)
    compare(study)
    assert set(read_csv()["accuracy_percent_mean"]) == {""}
    assert (RESULTS / "comparison.png").stat().st_size > 0


def test_one_test_patient_gives_values_without_an_interval(compare, study):
    for file in study[0].values():
        pd.read_parquet(file).assign(patient_id="P_00000").to_parquet(file)
    compare(study)
    row = read_csv().loc["mae"]
    assert row["accuracy_percent_low"] == ""
    assert f"| {float(row['accuracy_percent_mean']):.1f} ± " in read_md() and not re.search(r"\bnan\b", read_md())
    assert "no interval: all test lesions are of one patient" in " ".join(read_md().split())


def test_an_absent_class_is_named_once(compare, study, predictions):
    files, _, _ = study
    for number, (cell, file) in enumerate(files.items()):
        write(file, cell, predictions(number, test_labels=(0, 1, 3) * 6))
    compare(study)
    table = read_csv()
    assert set(table["classes_present"]) == {"3"}
    assert table.at["mae", "notes"] == "no test lesion of BENIGN_CALC: means over classes are over 3"


def test_few_lesions_leave_values_without_interval_and_the_table_says_why(compare, study, predictions):
    for number, (cell, file) in enumerate(study[0].items()):
        write(file, cell, predictions(number, test_labels=(0, 1, 3, 3)))
    compare(study)
    row = read_csv().loc["mae"]
    assert row["macro_auc_percent_low"] == "" != row["macro_auc_percent_mean"]
    assert row["accuracy_percent_low"] != ""
    told = " ".join(read_md().split())
    for text in (row["notes"], told):
        assert "all test lesions of BENIGN_MASS, MALIGNANT_MASS, MALIGNANT_CALC are of one patient each" in text
        assert re.search(r"no interval: \d+ of 100 draws of patients have no macro_auc", text)


def test_a_missing_fact_names_record_and_fact(compare, study, write_record):
    write_record(study[1]["strict", "mae"][0], seconds=None)
    with pytest.raises(MiramError, match=r"runs/strict/mae/record\.json lacks the fact 'seconds'"):
        compare(study)


def test_only_time_and_memory_differ_between_two_runs(compare, study, write_record):
    _, pretrain_records, _ = study
    compare(study)
    names = ("comparison.csv", "comparison.md", "comparison.png")
    first, table = {name: (RESULTS / name).read_bytes() for name in names}, read_csv()
    compare(study)
    assert first == {name: (RESULTS / name).read_bytes() for name in names}
    write_record(pretrain_records["strict", "mae"][0], seconds=99.0, peak_memory_bytes=7)
    compare(study)
    changed = table.columns[(table != read_csv()).any()]
    assert set(changed) == {"pretrain_seconds", "pretrain_peak_memory_mib"}
    assert (RESULTS / "comparison.png").read_bytes() == first["comparison.png"]


def test_the_demo_says_so_everywhere(compare, study):
    compare(study)
    assert set(read_csv()["preset"]) == {"demo"}
    heading, _, warning = read_md().splitlines()[:3]
    assert "demo" in heading
    assert warning.startswith("**DEMO")
    assert "cannot be compared" in " ".join(read_md().split())
    compare(study, preset="paper")
    assert set(read_csv()["preset"]) == {"paper"}
    assert "demo" not in read_md().lower()


def test_the_markdown_is_aligned_in_plain_text(compare, study):
    compare(study)
    blocks = [block.splitlines() for block in read_md().split("\n\n")]
    tables = [block for block in blocks if block[0].startswith("|")]
    assert [len(table) for table in tables] == [4 + 2] * 2 * 3 + [4 + 2]
    for table in tables:
        bars = {tuple(place for place, sign in enumerate(line) if sign == "|") for line in table}
        assert len(bars) == 1
    assert all(len(line) <= LINE_WIDTH for block in blocks if block not in tables for line in block)


def test_a_label_with_a_bar_or_a_line_break_keeps_its_cell():
    lines = aligned([{"class": "a|b\nc", "lesions": "1"}, {"class": "d", "lesions": "2"}]).splitlines()
    assert [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines] == ["class", "-" * 6, "a\\|b c", "d"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4


def test_lesions_set_aside_are_listed_and_counted(tmp_path):
    pd.DataFrame(
        {
            "lesion_id": [
                "Mass-Training_P_00001_LEFT_CC_1",
                "Mass-Training_P_00001_LEFT_CC_2",
                "Calc-Test_P_00002_RIGHT_MLO_1",
            ],
            "patient_id": ["P_00001", "P_00001", "P_00002"],
            "official_split": ["train", "train", "test"],
            "film_uid": ["1.2.3", "1.2.3", "1.2.4"],
            "reason": ["mask of series 1.2.5 is empty", "no mask", "film 1.2.4 has no pixel data"],
        }
    ).to_csv(tmp_path / "set_aside.csv", index=False)
    pd.DataFrame({"lesion_id": list("abc"), "official_split": ["train", "train", "test"]}).to_csv(
        tmp_path / "lesions.csv"
    )
    pd.DataFrame(
        {"lesion_id": list("abc"), "split": ["train", "excluded", "test"], "reason": ["", "patient P is in test", ""]}
    ).to_csv(tmp_path / "splits.csv", index=False)
    splits = {"strict": tmp_path / "splits.csv"}
    files = [tmp_path / "set_aside.csv", tmp_path / "lesions.csv", splits, tmp_path / "set_aside.md"]
    assert write_set_aside(*files, preset="demo") == {"set_aside": 3, "excluded": 1, "kept": 3}
    text = files[3].read_text(encoding="utf-8")
    assert "demo" in text.splitlines()[0]
    assert "* Mass-Training_P_00001_LEFT_CC_1 (train): mask of series 1.2.5 is empty" in text
    assert "* Calc-Test_P_00002_RIGHT_MLO_1 (test): film 1.2.4 has no pixel data" in text
    assert "* b, strict: patient P is in test" in text
    train = next(line for line in text.splitlines() if line.startswith("| train"))
    assert [cell.strip() for cell in train.strip("|").split("|")] == ["train", "4", "2", "1"]


def test_nothing_set_aside_is_said(tmp_path):
    columns = ["lesion_id", "patient_id", "official_split", "film_uid", "reason"]
    pd.DataFrame(columns=columns).to_csv(tmp_path / "set_aside.csv", index=False)
    pd.DataFrame({"official_split": ["train"]}).to_csv(tmp_path / "lesions.csv")
    pd.DataFrame({"lesion_id": ["a"], "split": ["train"], "reason": [""]}).to_csv(tmp_path / "splits.csv")
    splits = {"strict": tmp_path / "splits.csv"}
    files = [tmp_path / "set_aside.csv", tmp_path / "lesions.csv", splits, tmp_path / "set_aside.md"]
    assert write_set_aside(*files, preset="paper")["set_aside"] == 0
    assert "No lesion was set aside." in files[3].read_text(encoding="utf-8")
    assert "No lesion was left out." in files[3].read_text(encoding="utf-8")


def test_of_own_images_the_counts_stand_in_the_comparison_and_no_claims_and_no_malignancy(compare, study):
    overview = Path("overview.md")
    overview.write_text("5 lesions on 4 images of 3 patients; 1 of them are set aside.\n\n| class | used |\n")
    compare(study, "demo on mine", positive=["BENIGN_CALC"], overview_md=overview)
    text = read_md()
    assert overview.read_text().strip() in text and "claims.md" not in text
    assert "validation is drawn image by image, the test set is that of strict." in text
    assert "of training patients" not in text
    assert "sensitivity is that of BENIGN_CALC, at a specificity of 90%" in " ".join(text.split())
    compare(study, "demo on mine", positive=[], overview_md=overview)
    words = " ".join(read_md().split())
    assert (
        "sensitivity is not measured, as sources.images.positive names no class" in words and "malignancy" not in words
    )
    compare(study, "paper")
    assert "some test lesions are of training patients" in read_md()
    assert "what another training would change; variance.csv tells it by source" in " ".join(read_md().split())
    assert "claims.md" in read_md() and "sensitivity is that of malignancy" in " ".join(read_md().split())
