"""The report as a file, and as a reader's browser shows it."""

import re
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny_study import CLASSES, FOUR, METHODS, PRETRAINED, write_study

from miram.report.page_figures import embeddings
from miram.report.page_tables import metric_groups
from miram.report.report import Contents, report
from miram.report.study import Study
from miram.stages import STAGES

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
SECTIONS = (
    *("table", "differences", "verdicts", "curves", "confusion", "calibration", "learning", "efficiency"),
    *("reconstructions", "relevance", "embedding", "errors", "audit", "gaps", "provenance"),
)
LIMIT = 15_000_000  # bytes


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A complete report of preset paper, its folder the working folder while it is made."""
    return made(tmp_path_factory.mktemp("study"), "paper")


def made(folder, preset, spoil=lambda: None, logs=None, own=None, **kind):
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        keywords = write_study(preset, **kind) | (own or {})
        spoil()
        facts = report(Path("report.html"), Path("checklist.md"), Contents(**keywords, logs=logs or {}))
    return folder / "report.html", facts


SMALL = {"protocols": ["strict"], "tasks": ["pathology_4class"], "modes": ["finetune"], "seeds": [0]}


@pytest.fixture(scope="module")
def browser():
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, page):
    """The page in a browser, at 1280 px, with all that the browser complained about or asked for."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.complaints, tab.asked = [], []
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(page[0].as_uri())
    yield tab
    tab.close()


def test_a_browser_shows_the_page_without_an_error_and_without_a_request(opened):
    assert opened.complaints == []
    assert [url for url in opened.asked if not url.startswith(("file://", "data:"))] == []
    assert len([url for url in opened.asked if url.startswith("file://")]) == 1


def test_every_section_has_its_figures_and_every_picture_is_drawn(opened):
    counts = {id: opened.locator(f"#{id} svg[role=img], #{id} img, #{id} table").count() for id in SECTIONS}
    assert counts["differences"] == 2 + 1  # accuracy, macro AUC; the table of the sources of variance
    assert counts["curves"] == 2 * len(FOUR) + 2 * 2  # ROC and PR of each class, and of two other tasks
    assert counts["confusion"] == counts["calibration"] == len(METHODS)
    assert counts["learning"] == 2 + len(PRETRAINED)
    assert (
        counts["efficiency"] == 2 + 1 + 2 + 1
    )  # accuracy against time and memory; effort; growth of both, and its table
    assert counts["reconstructions"] == 3 + 4 * 5  # mae has one scale, mocov3 rebuilds nothing
    assert counts["relevance"] == 4 * (1 + len(METHODS))
    assert counts["embedding"] == len(PRETRAINED)
    assert counts["errors"] == 8
    widths = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert min(widths) > 0
    assert opened.locator(".empty:visible").count() == 0


def test_a_heading_sorts_its_table_both_ways(opened):
    table = opened.locator("#table table:visible").first
    column = "[...arguments[0].tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))"
    values = lambda: table.evaluate(f"(...arguments) => {column}")  # noqa: E731
    before = values()
    table.locator("th button").nth(1).click()
    assert values() == sorted(before, reverse=True) != before
    table.locator("th button").nth(1).click()
    assert values() == sorted(before)
    table.locator("th button").first.click()
    assert table.locator("tbody th").first.inner_text().strip() == max(METHODS)


def test_the_choices_show_one_table_and_name_what_was_not_measured(opened):
    shown = opened.locator("[data-group]:visible")
    assert shown.count() == 1
    opened.locator(".choose select").nth(1).select_option("mass_margins")
    assert shown.count() == 1
    assert "mass_margins" in shown.inner_text()
    opened.evaluate("document.querySelector('[data-group=\"published mass_margins finetune\"]').remove()")
    opened.locator(".choose select").nth(0).select_option("published")
    assert shown.count() == 0
    assert opened.locator("#no-group").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(opened, width):
    opened.set_viewport_size({"width": width, "height": 844})
    opened.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_both_protocols_stand_side_by_side_with_the_lesions_that_leak(opened):
    rows = opened.locator("#table table.compact tfoot tr").all_inner_texts()
    assert [re.findall(r"\d+ of 60", row) for row in rows] == [["0 of 60", "6 of 60"], ["0 of 60", "4 of 60"]]


def test_print_unfolds_everything(opened):
    opened.pdf()
    assert opened.locator("details:not([open])").count() == 0


def test_it_is_one_small_file_with_ids_of_its_own(page):
    html, facts = page
    text = html.read_text()
    assert facts["gaps"] == []
    assert html.stat().st_size == facts["bytes"] < LIMIT
    assert not re.search(r'(src|href)="(?!data:|#|https://arxiv\.org/)', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_what_is_linear_is_what_the_claims_say(page):
    claims = yaml.safe_load((Path(__file__).parents[2] / "workflow" / "resources" / "claims.yaml").read_text())
    found = re.search(r"to a power of at most ([\d.]+)\. .*, at the (\d+) tokens", page[0].read_text())
    assert float(found[1]) == claims["linear-memory"]["exponent"]
    assert {int(found[2])} == {claim["tokens"] for claim in claims.values() if "tokens" in claim}


def test_the_same_files_give_the_same_page(tmp_path):
    pages = [made(tmp_path / name, "paper", **SMALL)[0].read_bytes() for name in ("first", "second")]
    assert pages[0] == pages[1]


def test_the_table_comes_first_and_the_demo_folds_its_evidence_and_gives_no_verdict(page, tmp_path):
    text = page[0].read_text()
    assert text.index('id="table"') < text.index('id="differences"') < text.index('id="verdicts"')
    assert "not reproduced" in text
    assert "DEMO" not in text
    demo = made(tmp_path, "demo", **SMALL)[0].read_text()
    assert "Demo: no verdict" in demo
    assert "<title>DEMO" in demo
    assert set(re.findall(r'class="pill ([a-z-]+)"', demo)) == {"no-verdict"}
    folded = demo.index("<details><summary>No verdicts in the demo")
    assert folded < demo.index('class="pill no-verdict"')
    assert "No verdicts in the demo" not in text


def test_the_first_screen_names_lesions_and_networks_as_the_tables_do(tmp_path):
    first_screen = made(tmp_path, "small", **SMALL)[0].read_text().partition('id="table"')[0]
    assert "CBIS-DDSM, small models on the archive&#39;s own crops." in first_screen and "size." not in first_screen


def test_the_first_screen_says_that_a_trivial_classifier_wins(tmp_path):
    def spoil():
        results = Path("results", "paper")
        metrics, differences = (pd.read_csv(results / f"{name}.csv") for name in ("metrics", "differences"))
        own = metrics[(metrics["method"] == "mae") & metrics["seed"].isna()]
        trivial = own.assign(method="trivial-size", value=0.995, low=0.95, high=1.0, note="sees only its size")
        pairs = [(first, "trivial-size") for first in METHODS]
        rows = differences[differences["metric"] == "accuracy"].head(1).drop(columns=["first", "second"])
        rows = rows.merge(pd.DataFrame(pairs, columns=["first", "second"]), how="cross")
        rows = rows.assign(difference=-0.3, low=-0.4, high=-0.2, p_holm=0.001)
        pd.concat([metrics, trivial]).to_csv(results / "metrics.csv", index=False)
        pd.concat([differences, rows]).to_csv(results / "differences.csv", index=False)

    plain, text = (
        made(tmp_path / str(n), "paper", *more, **SMALL)[0].read_text() for n, more in enumerate([(), (spoil,)])
    )
    first_screen = text[: text.index("<nav")]
    assert "trivial-size, gets 99.5 % right (95% interval 95.0 to 100.0)" in first_screen
    assert "is beaten by it: -30.0 points, 95% interval -40.0 to -20.0 (p 0.0010 after Holm" in first_screen
    assert re.search('<tr><th scope="row">trivial-size</th>', text)
    told = r"differs in accuracy from \d+ of 6 others, from-scratch among them, by more than chance"
    assert re.findall(told, plain) == re.findall(told, text) != []
    assert not re.search("Highest accuracy[^:]*: trivial", text) and "less trivial-size" not in text
    assert "trivial" not in plain[: plain.index("<script")]


def test_the_checklist_names_file_and_figure_or_a_person(page):
    text = (page[0].parent / "checklist.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "? " in line]
    files = {file for row in rows for file in row[1].replace("#", ", #").split(", ")}
    known = {file for stage in STAGES.values() for file in stage.files}
    assert {file for file in files if file[0] != "#"} <= known | {"needs a person"}
    assert {file[1:] for file in files if file[0] == "#"} <= {*SECTIONS, "cohort"}
    answers = {question: (file, figure) for question, file, figure in rows}
    assert answers["Who is in each split?"] == ("cohort.md, cohort.csv", "60 test lesions, 30 patients")
    assert answers["How were the data made anonymous?"] == ("needs a person", "")
    assert "published: 6 of 60 test lesions" in answers["At which level are the splits disjoint?"][1]
    assert sum(file == "needs a person" for file, _ in answers.values()) > 10


def test_evidence_without_a_protocol_begins_with_no_colon(page):
    assert "<b></b>" not in page[0].read_text()


def test_under_each_figure_stands_the_command_that_makes_it(page):
    text = page[0].read_text()
    for section in ("differences", "curves", "calibration", "learning", "efficiency", "reconstructions", "embedding"):
        part = text[text.index(f'<section id="{section}">') :]
        assert "<code>miram --preset paper report</code>" in part[: part.index("</section>")], section


def test_every_command_that_the_page_names_exists(page):
    named = re.findall("<code>miram --preset paper ([^<]*)</code>", page[0].read_text())
    assert set(named) <= {"bench", *(stage.name for stage in STAGES.values() if not stage.within)}
    assert {"classify", "evaluate", "pretrain", "explain", "table", "claims", "cohort"} <= set(named)


def test_a_lesion_that_the_predictions_lack_is_a_gap_and_the_others_are_explained(tmp_path):
    def outdated():
        path = Path("runs", "paper", "explain", "relevance.npz")
        with np.load(path) as arrays:
            found = dict(arrays)
        crops = Path("data", "paper", "crops")
        shutil.copy(crops / f"{found['lesion_id'][0]}.png", crops / "Mass-Test_P_99999_LEFT_CC_1.png")
        found["lesion_id"] = np.array(["Mass-Test_P_99999_LEFT_CC_1", *found["lesion_id"][1:]])
        np.savez(path, **found)

    html, facts = made(tmp_path, "paper", outdated, **SMALL)
    (gap,) = facts["gaps"]
    assert "relevance.npz" in gap and "Mass-Test_P_99999_LEFT_CC_1" in gap
    assert html.read_text().count('alt="relevance map of mae') == 3


def test_missing_and_damaged_runs_are_named_and_the_rest_is_shown(tmp_path):
    runs = Path("runs", "paper", "strict")
    mocov3 = runs / "classifiers" / "pathology_4class" / "finetune" / "mocov3" / "seed-0"

    def spoil():
        shutil.rmtree(mocov3)
        (runs / "pretrain" / "mae" / "seed-0" / "record.json").unlink()
        (runs / "pretrain" / "miram-full" / "seed-0" / "reconstructions.npz").write_bytes(b"cut short")
        Path("results", "paper", "claims.csv").unlink()
        Path("results", "paper", "audit.md").unlink()
        Path("runs", "paper", "explain", "relevance.npz").unlink()

    html, facts = made(tmp_path, "paper", spoil, logs={mocov3 / "record.json": Path("mocov3.log")}, **SMALL)
    text = html.read_text()
    assert "See mocov3.log" in text
    for named in ("mocov3", "pretrain/mae/seed-0/record.json", "miram-full", "claims.csv", "audit.md", "relevance.npz"):
        assert any(named in gap for gap in facts["gaps"]), named
        assert named in text
    assert len(facts["gaps"]) == 6
    assert "No claim has been judged" in text
    assert 'id="calibration-mae-' in text
    assert 'id="calibration-mocov3-' not in text


def test_a_headline_without_any_result_is_a_gap_and_the_other_protocol_is_shown(tmp_path):
    def spoil():
        """What the stage `evaluate` leaves where no classifier of protocol strict has finished."""
        shutil.rmtree(Path("runs", "paper", "strict", "classifiers"))
        measured = {"metrics": ["value", "low", "high", "sd", "lesions"], "differences": ["difference", "low", "high"]}
        for name, columns in measured.items():
            path = Path("results", "paper", f"{name}.csv")
            table = pd.read_csv(path)
            table.loc[table["protocol"] == "strict", columns] = None
            table.to_csv(path, index=False)
        path = Path("results", "paper", "efficiency.csv")
        pd.read_csv(path).assign(accuracy_percent_value=None).to_csv(path, index=False)

    html, facts = made(tmp_path, "paper", spoil, **{**SMALL, "protocols": ["strict", "published"]})
    text = html.read_text()
    captions = re.findall(r"protocol (\w+), [^:<]*: ([\d-]+) test lesions", text)
    assert captions == [("strict", "-"), ("published", "60")]
    assert len(facts["gaps"]) == len(METHODS)
    assert "no test lesions yet" in text
    assert "Highest accuracy" not in text and "differs in accuracy from" not in text
    assert "No method has both an accuracy" in text


def test_a_probe_shown_first_leaves_learning_curves_and_maps_to_fine_tuning(tmp_path):
    text = made(tmp_path, "paper", **{**SMALL, "modes": ["linear", "finetune"], "seeds": [1, 0]})[0].read_text()
    assert "macro AUC on validation over the epochs" in text
    found = re.findall(r"<figcaption><b>mae</b> . ([a-z ]+) (\d+) %", text)
    tuned = pd.read_parquet(
        tmp_path / "runs/paper/strict/classifiers/pathology_4class/finetune/mae/seed-1/predictions.parquet"
    )
    tuned = tuned.filter(like="prob_")[: len(found)]
    answers = tuned.idxmax(axis=1).str.removeprefix("prob_").str.replace("_", " ").str.lower()
    assert found == list(zip(answers, (100 * tuned.max(axis=1)).round().astype(int).astype(str), strict=True))
    relevance = text[text.index('id="relevance"') :]
    assert relevance.index("fine-tuning of the whole network") < relevance.index("Test lesions, first seed")


def test_a_label_is_text_and_never_markup_an_id_or_a_formula(tmp_path, monkeypatch):
    labels = ('x"><q>y', r"a\d of $\frac$", "A b", "a b")
    monkeypatch.setitem(CLASSES, "pathology_4class", labels)
    text = made(tmp_path, "paper", **SMALL)[0].read_text()
    assert "<q>" not in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w.-]+", name) for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    for label in labels:
        assert f"{escape(label.lower(), quote=False)}: ROC</text>" in text


@pytest.mark.parametrize("labels", [("0", "01"), ("NA", "None")])
def test_labels_that_look_like_numbers_or_like_nothing_are_text(tmp_path, labels):
    path = tmp_path / "embedding.csv"
    rows = [("mae", f"Image_{number}", label, 0.1, 0.2, 0.5) for number, label in enumerate(labels)]
    pd.DataFrame(rows, columns=["method", "lesion_id", "label", "x", "y", "share"]).to_csv(path, index=False)
    assert list(embeddings(Study({}).table(path))["class_keys"]) == [*labels]


def test_what_a_stage_without_its_record_left_is_not_shown(page, tmp_path):
    html, facts = made(tmp_path, "paper", Path("runs", "paper", "explain", "record.json").unlink, **SMALL)
    assert len(facts["gaps"]) == 1 and "stage explain" in facts["gaps"][0]
    assert ['id="embedding-mae' in made_page.read_text() for made_page in (page[0], html)] == [True, False]


def test_a_class_without_a_test_lesion_leaves_its_curves_out_and_is_named(tmp_path):
    text = made(tmp_path, "paper", absent="BENIGN_CALC", **SMALL)[0].read_text()
    assert "no test lesion of BENIGN_CALC" in text
    assert 'aria-label="ROC of benign mass: ' in text
    assert 'aria-label="ROC of benign calc: ' not in text


def test_without_any_result_there_is_still_a_page(tmp_path):
    def spoil():
        for folder in ("runs", "results", "data"):
            shutil.rmtree(folder)

    html, facts = made(tmp_path, "demo", spoil, **SMALL)
    assert len(facts["gaps"]) >= len(METHODS) + len(PRETRAINED)
    assert "There are no predictions." in html.read_text()


def test_of_own_images_the_page_tells_what_they_are(tmp_path):
    def understood():
        Path("overview.md").write_text("5 lesions on 4 images of 3 patients\n\n* pictures under several names: none\n")

    kind = {**SMALL, "protocols": ["strict", "published"]}
    own = {"overview_md": Path("overview.md"), "positive": []}
    text = made(tmp_path / "own", "paper", understood, own=own | {"stages": {}}, **kind)[0].read_text()
    assert "What the images are" in text and "<li>pictures under several names: none</li>" in text
    leaking = "some test patients also occur in training"
    assert "What the protocol does" in text and leaking not in text
    assert leaking in made(tmp_path / "films", "paper", **kind)[0].read_text()


def test_sensitivity_is_called_that_of_the_positive_class_or_is_not_shown():
    place = {"protocol": "strict", "task": "label", "mode": "finetune", "method": "mae", "split": "test", "seed": None}
    rows = [place | {"metric": name, "value": 0.5, "lesions": 4} for name in ("accuracy", "sensitivity")]
    metrics = pd.DataFrame(rows, columns=[*place, "metric", "value", "low", "high", "sd", "lesions", "note"])
    paper = pd.DataFrame(columns=["task", "method", "metric", "value"])
    looks = {"mae": None}

    def meanings(positive):
        (group,) = metric_groups(metrics, paper, looks, ("strict", "label", "finetune"), positive)
        return {metric["name"]: metric["meaning"] for metric in group["metrics"]}

    assert meanings(None)["sensitivity"].endswith("of malignancy, or the mean of the classes'")
    assert meanings(["1"])["sensitivity"].endswith("of class 1")
    assert list(meanings([])) == ["accuracy"]


def test_rows_that_differ_in_more_than_the_method_are_named_on_the_first_screen_and_at_the_verdict(tmp_path):
    told = "side (224 against 112)"

    def unlike():
        for name in ("differences", "claims"):
            path = Path(f"results/paper/{name}.csv")
            pd.read_csv(path).assign(differs_in=told).to_csv(path, index=False)

    page = made(tmp_path, "paper", spoil=unlike, **SMALL)[0].read_text()
    pairs = len(METHODS) - 1
    assert f"{pairs} of these pairs differ in more than the method" in page.partition("<main>")[0]
    assert f"<b>Not like with like</b>: {told}. " in page.partition('id="verdicts"')[2]
    assert page.count(f"miram-nystrom and mae: {told}") == 1


def test_the_first_screen_counts_the_verdict_of_every_claim(tmp_path):
    first_screen = made(tmp_path, "paper", **SMALL)[0].read_text().partition('id="table"')[0]
    claims, verdicts = re.search("Of ([0-9]+) claims: (.*)</p>", first_screen).groups()
    assert sum(map(int, re.findall(r"\d+", verdicts))) == int(claims)


def test_the_first_screen_says_that_a_setting_is_not_the_papers(tmp_path):
    own = {"setting": "It is not the paper's setting: side 96 px."}
    for preset, shown in (("small", True), ("demo", False)):
        page = made(tmp_path / preset, preset, own=own, **SMALL)[0].read_text()
        assert (own["setting"].replace("'", "&#39;") in page.partition("<main>")[0]) == shown


def test_where_methods_were_pre_trained_once_every_statement_says_so(tmp_path):
    def again():
        path = Path("results/paper/metrics.csv")
        table = pd.read_csv(path, dtype={"seed": "Int64"})
        table["pretrain_seed"] = table["seed"].where(table["method"] != "from-scratch")
        table.astype({"pretrain_seed": "Int64"}).to_csv(path, index=False)

    kind = {**SMALL, "seeds": [0, 1]}
    one = made(tmp_path / "one", "paper", **kind)[0].read_text()
    two = made(tmp_path / "two", "paper", spoil=again, **kind)[0].read_text()
    for words, times in (("of this one pre-training", 6), ("nothing is claimed about the method", 3)):
        assert one.count(words) >= times and words not in two
    assert "pre-trained 2 times: intervals and tests hold for further pre-trainings too" in two
    assert "Where the spread of accuracy comes from" in one
