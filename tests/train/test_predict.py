import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from tiny_classifier import FOUR, SEEN, saved_classifier

from miram import layout, params
from miram.cli import main
from miram.cli.training import _seen
from miram.data.crop_rules import Taking
from miram.data.pictures.picture import Range
from miram.data.pictures.survey import FILMS
from miram.data.taking import take_crops
from miram.errors import MiramError
from miram.models.export import load_classifier
from miram.provenance import record
from miram.train.augment import resize, to_images
from miram.train.explain import relevance
from miram.train.predict import cut_square, look, predict
from miram.train.seen import Seen

ROOT = Path(__file__).parents[2]
COMPUTE = {"accelerator": "cpu", "precision": "32-true", "threads": 1}
WINDOW = {"component": "union", "shape": "square", "margin": 0.0, "side_min": 1}
OWN = Seen(levels="data", ranges={"PNG, 16 bits": Range(0, 12)}, films=False, **WINDOW)
FILM = Seen(levels="data", ranges=None, films=True, **WINDOW)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    saved_classifier(path)
    return path


@pytest.fixture
def film(tmp_path):
    """A film of 40 rows and 60 columns, 16 bits, as DICOM; gives its path and its pixels."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (40, 60), dtype=np.uint16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(tmp_path / "film.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(tmp_path / "film.dcm", dataset)
    return tmp_path / "film.dcm", pixels


def test_a_region_of_a_film_gives_the_answer_of_its_crop(model, film, tmp_path):
    path, pixels = film
    Image.fromarray((pixels[5:29, 10:34] >> 8).astype(np.uint8)).save(tmp_path / "crop.png")
    of_film = predict(model, path, (10, 5, 24), **COMPUTE)
    of_crop = predict(model, tmp_path / "crop.png", None, **COMPUTE)
    assert of_film.probabilities == of_crop.probabilities
    assert tuple(of_film.probabilities) == FOUR
    assert sum(of_film.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert of_film.view.shape == (16, 16)
    np.testing.assert_array_equal(of_film.relevance, of_crop.relevance)


def test_a_network_of_several_labels_answers_for_each_class_by_itself(film, tmp_path):
    saved_classifier(tmp_path / "model.safetensors", multi_label=True)
    found = predict(tmp_path / "model.safetensors", film[0], (10, 5, 24), **COMPUTE)
    model = load_classifier(tmp_path / "model.safetensors")[0]
    with torch.no_grad():
        logits = model(to_images(torch.from_numpy(found.view[None].copy()), 3))
    assert list(found.probabilities.values()) == pytest.approx(logits.sigmoid()[0].tolist(), abs=1e-6)
    assert found.relevance == pytest.approx(relevance(model, found.view, multi_label=True), abs=1e-6)


def read_picture(path):
    return (FILMS.read(path)[0] >> 8).astype(np.uint8)


def test_without_a_box_a_network_of_ones_own_images_sees_what_training_cut(tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (20, 12)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "own.png")
    expected = np.zeros((20, 20), np.uint8)
    expected[:, 4:16] = grey >> 4
    np.testing.assert_array_equal(look(tmp_path / "own.png", None, OWN)[0], expected)
    saved_classifier(tmp_path / "model.safetensors", seen=OWN.told())
    found = predict(tmp_path / "model.safetensors", tmp_path / "own.png", None, **COMPUTE)
    assert found.view.shape == (16, 16) and not found.note


def test_a_network_of_the_archives_own_crops_sees_one_whole_as_in_training_and_takes_no_box(film, tmp_path):
    saved_classifier(tmp_path / "small.safetensors", seen=_seen(params.load(ROOT / "params.yaml", "small")).told())
    dark = tmp_path / "dark.png"  # which stays dark
    Image.fromarray(film[1] >> 5).save(dark)
    for path in (film[0], dark):
        (tmp_path / path.stem).mkdir()
        (tmp_path / path.stem / path.name).symlink_to(path)
        lesion = {"lesion_id": "a", "crop_uid": path.stem, "mask_uid": path.stem, "repairs": ""}
        [(_, crop)] = take_crops([lesion], tmp_path, Taking(bits=8, doubtful="keep"), {})
        found = predict(tmp_path / "small.safetensors", path, None, **COMPUTE)
        assert crop.shape == (40, 60)
        np.testing.assert_array_equal(found.view, resize(crop, 16))
        with pytest.raises(MiramError, match=f"{path.name}: no box can be cut .* archive's own crops"):
            predict(tmp_path / "small.safetensors", path, (10, 5, 24), **COMPUTE)


def test_what_lies_outside_the_picture_is_black(film):
    pixels = read_picture(film[0])
    found = cut_square(pixels, (-4, 30, 20), film[0])
    assert found.shape == (20, 20)
    assert not found[:, :4].any()
    assert not found[10:].any()
    np.testing.assert_array_equal(found[:10, 4:], pixels[30:, :16])


@pytest.mark.parametrize("box", [(60, 0, 5), (0, 40, 5), (-9, 0, 9), (3, 3, 0)])
def test_a_box_outside_is_refused_with_the_size(film, box):
    with pytest.raises(MiramError, match="60 px wide and 40 px high") as refused:
        cut_square(read_picture(film[0]), box, film[0])
    assert "--box X0 Y0 SIDE" in refused.value.remedy


def test_a_film_without_a_box_is_refused_with_its_size(film):
    with pytest.raises(MiramError, match="60 px wide and 40 px high"):
        look(film[0], None, FILM)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    Image.new("L", (9, 9)).save(tmp_path / "cut.tiff")
    (tmp_path / "cut.tiff").write_bytes((tmp_path / "cut.tiff").read_bytes()[:-5])
    for name in ("notes.txt", "missing.png", "cut.tiff"):
        with pytest.raises(MiramError, match=f"{name} cannot be (read|decoded)"):
            read_picture(tmp_path / name)


def test_a_film_that_uses_only_its_darkest_levels_is_brightened_and_that_is_said(model, tmp_path):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "12 bits.png")
    found = predict(model, tmp_path / "12 bits.png", None, **COMPUTE)
    assert (found.view == 255).all() and "levels 4095 to 4095 do not fit" in found.note


@pytest.mark.parametrize(("source", "task"), [("tcia", "pathology_4class"), ("images", "label")])
def test_without_a_method_the_best_on_validation_is_asked(tmp_path, monkeypatch, capsys, source, task):
    edited = (ROOT / "params.yaml").read_text().replace("source: tcia", f"source: {source}")
    (tmp_path / "params.yaml").write_text(re.sub(r"tasks: \[.*\]", f"tasks: [{task}]", edited))
    monkeypatch.chdir(tmp_path)
    chosen = params.load(tmp_path / "params.yaml")
    run = "my-images" if source == "images" else "demo"
    cell = layout.Cell("strict", task, "finetune", "mae", 0)
    for method, auc in (("mae", 0.7), ("miram-full", 0.9), ("mocov3", 0.8)):
        for seed in (0, 1):  # of the other seeds there is one that is better still
            path = layout.record("finetune", run, *cell._replace(method=method, seed=seed))
            facts = {"val_macro_auc": auc + 0.2 * (seed == 1 and method == "mae")}
            values = params.stage_values(chosen, "finetune", *cell._replace(method=method, seed=seed))
            record.finish(path, {"inputs": {}, "stage": "finetune", "values": values}, outputs=[], facts=facts)
    # what is said of the grey levels is what the network's file tells, not what params.yaml says now
    seen = SEEN if source == "tcia" else OWN.told()
    saved_classifier(layout.classifier(run, cell._replace(method="miram-full")) / "model.safetensors", seen=seen)
    Image.fromarray(np.arange(256).reshape(16, 16).astype(np.uint16) << 6).save("crop.png")
    assert main(["predict", "crop.png"]) == 0
    said = capsys.readouterr().out
    assert ("do not fit those of its kind, 0 to 4095" in said) == (source == "images")
    assert f"miram-full, {task}, protocol strict, seed 0" in said
    assert ("phantom lesions only" in said) == (source == "tcia")
    assert sum(f" %  {name}" in said for name in FOUR) == 4 and "not a medical device" in said.lower()
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("drop_path: 0.1", "drop_path: 0.3"))
    assert main(["predict", "crop.png"]) == 1  # no answer of a network of other parameters
    said = capsys.readouterr().err
    assert "has finished with the present parameters. finetune.drop_path of " in said and "--network FILE" in said
