import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from pictures_in_files import dicom
from PIL import Image

from miram.errors import MiramError
from miram.files import sha256_pixels
from miram.train.store import Store, extra_ids, pack


def packed(folder, crops: dict[str, np.ndarray | bytes]):
    """Pack the crops (arrays, or a file's bytes) and open the store."""
    folder.mkdir(exist_ok=True)
    for lesion_id, crop in crops.items():
        if isinstance(crop, bytes):
            (folder / f"{lesion_id}.png").write_bytes(crop)
        else:
            Image.fromarray(crop).save(folder / f"{lesion_id}.png")
    pack_named(folder, list(crops), [])
    return Store(folder / "crops.u8", folder / "index.csv")


def pack_named(folder, lesions, backgrounds, extra_images=None, **digest):
    pd.DataFrame({"lesion_id": lesions, **digest}).to_csv(folder / "lesions.csv", index=False)
    pd.DataFrame({"background_id": backgrounds}).to_csv(folder / "backgrounds.csv", index=False)
    images = folder, folder / "lesions.csv", folder / "backgrounds", folder / "backgrounds.csv"
    return pack(
        *images,
        folder / "crops.u8",
        folder / "index.csv",
        folder / "extra.csv",
        extra_images=extra_images,
        levels="data",
    )


def test_crops_come_back_as_they_were_in_the_order_of_the_table(lesions, store_paths, lesion_ids):
    store = Store(*store_paths)
    assert store.image_ids == lesion_ids and len(store) == 12
    for i, lesion_id in enumerate(lesion_ids):
        assert np.array_equal(store[i], np.asarray(Image.open(lesions / "crops" / f"{lesion_id}.png")))


def test_lesions_are_found_by_name(store_paths):
    assert Store(*store_paths).places(["lesion_07", "lesion_02"]) == [7, 2]


def test_an_unknown_lesion_is_named(store_paths):
    with pytest.raises(MiramError, match="lesion_99"):
        Store(*store_paths).places(["lesion_01", "lesion_99"])


def test_16_bit_crops_keep_the_high_byte(tmp_path):
    pixels = np.array([[0, 255, 256], [4660, 65279, 65535]], dtype=np.uint16)
    assert packed(tmp_path, {"a": pixels})[0].tolist() == [[0, 0, 1], [18, 254, 255]]


@pytest.mark.parametrize(
    "crop",
    [b"", b"no image", np.zeros((4, 4, 3), np.uint8)],
    ids=["empty", "not an image", "coloured"],
)
def test_a_damaged_crop_is_named_and_leaves_no_store(tmp_path, crop):
    with pytest.raises(MiramError, match=r"lesion_b\.png"):
        packed(tmp_path, {"lesion_a": np.ones((4, 4), np.uint8), "lesion_b": crop})
    assert not list(tmp_path.glob("*crops.u8*")) and not list(tmp_path.glob("*index.csv*"))


def test_a_crop_that_is_cut_short_is_named(tmp_path, lesions):
    whole = (lesions / "crops" / "lesion_00.png").read_bytes()
    with pytest.raises(MiramError, match=r"lesion_00\.png"):
        packed(tmp_path, {"lesion_00": whole[: len(whole) // 2]})


def test_a_missing_crop_is_named(tmp_path):
    with pytest.raises(MiramError, match=r"gone\.png is missing"):
        pack_named(tmp_path, ["gone"], [])


def test_a_crop_that_was_edited_is_named_and_leaves_no_store(tmp_path):
    crop = np.zeros((4, 4), np.uint16)
    Image.fromarray(crop).save(tmp_path / "lesion_a.png")
    pack_named(tmp_path, ["lesion_a"], [], crop_sha256=sha256_pixels(crop))
    (tmp_path / "crops.u8").unlink()
    Image.fromarray(crop + 1).save(tmp_path / "lesion_a.png")
    with pytest.raises(MiramError, match=r"lesion_a\.png is not the one that was cut"):
        pack_named(tmp_path, ["lesion_a"], [], crop_sha256=sha256_pixels(crop))
    assert not list(tmp_path.glob("*crops.u8*"))


def test_backgrounds_and_images_of_ones_own_lie_behind_the_lesions(tmp_path):
    for name, value in {"lesion": 1, "backgrounds/patch": 2, "own/film": 3, "own/a film": 4}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((2, value), value, np.uint8)).save(tmp_path / f"{name}.png")
    counts = pack_named(tmp_path, ["lesion"], ["patch"], str(tmp_path / "own"))
    assert counts == {"lesion": 1, "background": 1, "extra": 2, "bytes": 20}
    store = Store(tmp_path / "crops.u8", tmp_path / "index.csv")
    assert store.image_ids == ["lesion", "patch", "extra_a film.png", "extra_film.png"]
    assert [store[i].max() for i in range(4)] == [1, 2, 4, 3]
    assert extra_ids(tmp_path / "index.csv") == ["extra_a film.png", "extra_film.png"]


def test_pictures_of_every_kind_and_in_folders_below_are_packed_and_the_rest_is_named(tmp_path, capsys):
    twelve = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    high = (twelve >> 4).astype(np.uint8)
    folder = tmp_path / "own"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    Image.fromarray(twelve).save(folder / "a.PNG")
    Image.fromarray(twelve).save(folder / "below" / "a.tiff")
    Image.fromarray(high).save(folder / "b.jpg", quality=100)
    (folder / "film").write_bytes(dicom(4095 - twelve, stored=16, PhotometricInterpretation="MONOCHROME1"))
    (folder / ".hidden" / "c.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    counts = pack_named(tmp_path, [], [], str(folder))
    assert counts == {"extra": 4, "set_aside": 1, "bytes": 4 * 4096}
    store = Store(tmp_path / "crops.u8", tmp_path / "index.csv")
    assert store.image_ids == ["extra_a.PNG", "extra_b.jpg", "extra_below/a.tiff", "extra_film"]
    assert all(np.abs(store[i].astype(int) - high).max() <= (2 if i == 1 else 0) for i in range(4))
    assert list(pd.read_csv(tmp_path / "extra.csv")["image"]) == ["a.PNG", "b.jpg", "below/a.tiff", "film"]
    assert "set aside notes.txt" in capsys.readouterr().out


def test_a_folder_without_a_picture_and_a_link_to_nowhere_are_named(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("no picture")
    with pytest.raises(MiramError, match=r"own holds no picture; notes\.txt: .*cannot be decoded"):
        pack_named(tmp_path, [], [], str(tmp_path / "own"))
    (tmp_path / "own" / "link.png").symlink_to(tmp_path / "gone")
    with pytest.raises(MiramError, match=r"link\.png is a link to .*gone, which does not exist"):
        pack_named(tmp_path, [], [], str(tmp_path / "own"))


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(MiramError, match=r"extra_images: .*nowhere"):
        pack_named(tmp_path, [], [], str(tmp_path / "nowhere"))


def test_an_image_with_a_brace_in_its_name_is_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "p{3}.png")
    with pytest.raises(MiramError, match=r"extra_images: paths may not contain .*p\{3\}\.png"):
        pack_named(tmp_path, [], [], str(tmp_path))


def test_a_store_and_the_index_of_another_are_refused(tmp_path, store_paths):
    store = tmp_path / "crops.u8"
    shutil.copy(store_paths[0], store)
    with open(store, "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(MiramError, match="100 bytes"):
        Store(store, store_paths[1])


def test_a_missing_store_is_named(tmp_path, store_paths):
    with pytest.raises(MiramError, match="nowhere"):
        Store(tmp_path / "nowhere", store_paths[1])


def test_a_worker_maps_the_store_again_instead_of_copying_it(store_paths):
    store = Store(*store_paths)
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent)[5], store[5])


def test_the_digest_follows_pixels_sizes_and_order(tmp_path):
    flat = np.arange(6, dtype=np.uint8)
    store = packed(tmp_path / "a", {"a": flat.reshape(2, 3), "b": flat.reshape(3, 2)})
    changed = packed(tmp_path / "b", {"a": flat.reshape(2, 3), "b": flat[::-1].reshape(3, 2).copy()})
    assert store.digest([0, 1]) == store.digest([0, 1])
    assert len({store.digest([0]), store.digest([1]), store.digest([0, 1]), changed.digest([0, 1])}) == 4
