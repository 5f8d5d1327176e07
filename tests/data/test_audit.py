import pandas as pd
import pytest

from miram.data.audit import audit, catalogue_overlap, effect_on_test, film_pairs, shared_between
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.splits import split_lesions

LEAKING = (
    "16 41 159 394 495 510 591 601 639 652 678 723 753 882 906 924 969 1108 1152 1179 1237 1307 1365 1467 1566 1605"
    " 1621 1635 1741 1803 1883"
)
DIVISION = {"validation_fraction": 0.3, "candidates": 200, "seed": 42}


@pytest.fixture(scope="module")
def real():
    """The real case lists as if each were cut: films of one view have the same pixels, each crop its own."""
    lesions = carried_lesions()
    views = lesions["patient_id"] + lesions["side"] + lesions["view"]
    facts = {"film_sha256": views, "crop_sha256": lesions["lesion_id"], "film_rows": "4000", "film_columns": "3000"}
    return lesions.assign(**facts, **dict.fromkeys(("outside_film", "air", "foreign"), "0.0"))


def split_of(lesions, protocol):
    table = split_lesions(lesions, protocol=protocol, **DIVISION)
    return lesions["lesion_id"].map(table.set_index("lesion_id")["split"])


def test_the_case_lists_alone_show_31_patients_60_test_and_83_training_lesions(real):
    found = catalogue_overlap(real)
    assert found["patients"] == [f"P_{int(number):05d}" for number in LEAKING.split()]
    assert (found["train_lesions"], found["test_lesions"]) == (2864, 704)
    assert (found["test_lesions_of_patients_in_both"], found["train_lesions_of_patients_in_both"]) == (60, 83)
    assert (found["views_in_both"], found["test_lesions_on_a_view_in_both"]) == (29, 36)


def test_under_paper_training_knows_60_test_lesions_and_under_strict_none(real):
    expected = {"test lesions": 704, "patient seen": 60, "film seen": 36, "view seen": 36}
    assert effect_on_test(real, split_of(real, "published")) == expected
    assert effect_on_test(real, split_of(real, "strict")) == {**dict.fromkeys(expected, 0), "test lesions": 704}


def test_under_strict_no_two_splits_share_anything(real):
    assert (shared_between(real, split_of(real, "strict")) == 0).all(axis=None)
    leaky = shared_between(real, split_of(real, "published"))
    assert leaky.loc["train and validation", ["patients", "films by UID", "films by pixels"]].gt(0).all()
    assert leaky.loc[["train and test", "validation and test"], "films by UID"].eq(0).all()


def test_what_films_of_unknown_pixels_share_is_not_known(real):
    unknown = real.assign(film_sha256="")
    assert shared_between(unknown, split_of(unknown, "published"))["films by pixels"].eq("not known").all()
    assert effect_on_test(unknown, split_of(unknown, "published"))["film seen"] == 0


def test_pairs_of_films_are_told_by_pixels_and_size():
    films = [("a", "train", 9), ("a", "test", 9), ("b", "train", 9), ("", "train", 9), ("a", "train", 8)]
    lesions = pd.DataFrame(films, columns=["film_sha256", "official_split", "film_rows"])
    lesions = lesions.assign(film_uid=list("12345"), patient_id="P", side="LEFT", view="CC", film_columns=5)
    pairs = film_pairs(pd.concat([lesions, lesions[:1]]))
    assert pairs.loc["both parts"].tolist() == [1, 1, 1, 1]
    assert pairs.loc["same part"].tolist() == [0, 1, 2, 3]


def test_the_page_shows_both_protocols_side_by_side(real, tmp_path):
    lost = real[:1].assign(reason="its mask is empty")
    lesions = real[1:].assign(repairs="mask_resized")
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    lost.to_csv(tmp_path / "set_aside.csv", index=False)
    paths = {protocol: tmp_path / f"{protocol}.csv" for protocol in ("strict", "published")}
    for protocol, path in paths.items():
        split_lesions(lesions, protocol=protocol, **DIVISION).to_csv(path, index=False)
    audit(tmp_path / "lesions.csv", tmp_path / "set_aside.csv", paths, tmp_path / "audit.md", preset="demo")
    page = (tmp_path / "audit.md").read_text().replace(" ", "")
    assert "presetdemo" in page and "P_00016,P_00041" in page and "1of3568lesions" in page
    assert "*mask_resized:3567" in page
    test = {protocol: [line for line in page.splitlines() if line.startswith(f"|{protocol}|")] for protocol in paths}
    assert "|strict|703|0|0|0|" in test["strict"] and "|strict|trainandtest|0|0|0|0|" in test["strict"]
    assert any(line.startswith("|published|703|") and not line.endswith("|0|0|0|") for line in test["published"])


def test_images_of_ones_own_are_audited_without_views_and_borders(tmp_path):
    blank = dict.fromkeys(("side", "view", "outside_film", "air", "foreign", "repairs"), "")
    rows = [(f"Image_{n}", f"p{n}", "train" if n < 9 else "test", "round" if n % 2 else "flat") for n in range(12)]
    lesions = pd.DataFrame(rows, columns=["lesion_id", "patient_id", "official_split", "label"]).assign(**blank)
    names = {name: lesions["lesion_id"] for name in ("film_uid", "film_sha256", "crop_sha256")}
    lesions = lesions.assign(**names, film_rows=9, film_columns=9)
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    lesions[:0].to_csv(tmp_path / "set_aside.csv", index=False)
    split_lesions(lesions, protocol="strict", **DIVISION | {"seed": 1}).to_csv(tmp_path / "s.csv", index=False)
    tables = tmp_path / "lesions.csv", tmp_path / "set_aside.csv", {"strict": tmp_path / "s.csv"}
    found = audit(*tables, tmp_path / "audit.md", preset="demo")
    assert found["effect_on_test"]["strict"] == {"test lesions": 3, "patient seen": 0, "film seen": 0, "view seen": 0}
    assert "| flat" in (tmp_path / "audit.md").read_text()
