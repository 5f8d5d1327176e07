"""The store: every image decoded once into one flat uint8 file that all processes map into memory.

Images are the crops of the lesions, followed by those only for pre-training: background patches and own images.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from miram.data.pictures.pillow import decode
from miram.data.pictures.survey import Reading, Survey, summary, survey, write_survey
from miram.errors import MiramError
from miram.files import atomic_path, sha256_pixels
from miram.layout import extra_files
from miram.progress import track

REMEDY = "Run the stage `pack` again."
INDEX_COLUMNS = ["image_id", "kind", "offset", "rows", "columns"]
EXTRA = "extra"  # kind of own images; the others are "lesion" and "background"


def pack(
    crops_dir: Path,
    lesions_csv: Path,
    backgrounds_dir: Path,
    backgrounds_csv: Path,
    store_u8: Path,
    index_csv: Path,
    extra_csv: Path,
    *,
    extra_images: str | None,
    levels: str,
) -> dict[str, int]:
    """Decode the images that two tables name, and all of the folder `extra_images`, into `store_u8`, row-major.

    They are `crops_dir`/<lesion_id>.png and `backgrounds_dir`/<background_id>.png. `index_csv` gets one row per
    image, in that order: image_id, kind, offset (bytes), rows, columns (px). 16-bit images keep their high byte. The
    grey levels of the folder's pictures are scaled by the rule `levels`, see `miram.data.pictures.levels`; `extra_csv`
    gets the facts of each. Returns the numbers of images of each kind, of files set aside, and of bytes. Raises
    MiramError naming the file if an image of the tables is missing, damaged, not grey, or does not match its
    crop_sha256 in the table, or if the folder has no picture.
    """
    found = _extra(extra_images, levels)
    write_survey(found, extra_csv)
    reading = Reading(levels, found.ranges)
    images = [
        *_named("lesion", crops_dir, lesions_csv),
        *_named("background", backgrounds_dir, backgrounds_csv),
        *((f"{EXTRA}_{name}", EXTRA, Path(extra_images or "", name), None) for name in found.rows),
    ]
    index = []
    offset = 0
    with atomic_path(store_u8) as temporary_store, atomic_path(index_csv) as temporary_index:
        with open(temporary_store, "wb") as stream:
            for image_id, kind, path, sha256 in images:
                pixels = reading.read(path)[0] if kind == EXTRA else read_png(path, sha256)
                pixels = _high_byte(pixels)
                stream.write(pixels.tobytes())
                index.append((image_id, kind, offset, *pixels.shape))
                offset += pixels.size
        table = pd.DataFrame(index, columns=INDEX_COLUMNS)
        table.to_csv(temporary_index, index=False, lineterminator="\n")
    set_aside = {"set_aside": len(found.aside)} if found.aside else {}
    kinds = {str(kind): count for kind, count in table["kind"].value_counts().items()}
    return {**kinds, **set_aside, "bytes": offset}


def extra_ids(index_csv: Path) -> list[str]:
    """The own images in a store."""
    index = pd.read_csv(index_csv, dtype=str)
    return index.loc[index["kind"] == EXTRA, "image_id"].tolist()


def read_png(path: Path, sha256: str | None) -> np.ndarray:
    """A grey PNG as (rows, columns) uint8 or uint16.

    Raises MiramError naming the file, also if its pixels have another digest than `sha256`, if known.
    """
    remedy = "Delete it and run the stage `crops` again."
    pixels = np.asarray(decode(path))
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
        raise MiramError(
            f"The image {path} is not grey of 8 or 16 bits: shape {pixels.shape}, type {pixels.dtype}.", remedy
        )
    if sha256 is not None and sha256_pixels(pixels) != sha256:
        raise MiramError(f"The image {path} is not the one that was cut: the SHA-256 of its pixels differs.", remedy)
    return pixels


def _high_byte(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _extra(extra_images: str | None, levels: str) -> Survey:
    """A survey of the folder's files; files that are not pictures are reported."""
    paths = {str(path.relative_to(extra_images or "")): path for path in extra_files(extra_images)}
    found = survey(paths, levels, partial(track, description="extra images, looked at", total=len(paths)))
    if paths:
        print(summary(found, levels), flush=True)
        if not found.rows:
            name, why = next(iter(found.aside.items()))
            raise MiramError(
                f"pretrain.extra_images: {extra_images} holds no picture; {name}: {why}",
                "Name a folder with pictures in params.yaml, or null.",
            )
    return found


def _named(kind: str, folder: Path, table_csv: Path) -> Iterator[tuple[str, str, Path, str | None]]:
    """Name, kind, file and, for a lesion, the digest of its pixels."""
    for row in pd.read_csv(table_csv, dtype=str).to_dict("records"):
        yield row[f"{kind}_id"], kind, Path(folder) / f"{row[f'{kind}_id']}.png", row.get("crop_sha256")


class Store:
    """A packed store, read through a memory map; `store[i]` is image i as a read-only (rows, columns) uint8 array."""

    def __init__(self, store_u8: Path, index_csv: Path) -> None:
        """Raises MiramError when a file is missing or the two do not belong together."""
        self.paths = (Path(store_u8), Path(index_csv))
        try:
            index = pd.read_csv(index_csv, dtype={"image_id": str})
            size = os.path.getsize(store_u8)
        except FileNotFoundError as error:
            raise MiramError(f"{error.filename} is missing.", REMEDY) from error
        if list(index.columns) != INDEX_COLUMNS or size == 0 or size != (index["rows"] * index["columns"]).sum():
            raise MiramError(f"{index_csv} does not describe the {size} bytes of {store_u8}.", REMEDY)
        self.image_ids = index["image_id"].tolist()
        self._index = index[["offset", "rows", "columns"]].to_numpy().tolist()
        self._place = {image_id: i for i, image_id in enumerate(self.image_ids)}
        self._bytes = np.memmap(store_u8, dtype=np.uint8, mode="r")

    def __reduce__(self) -> tuple:
        return Store, self.paths  # a worker process maps the file again; the bytes are not sent

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> np.ndarray:
        offset, rows, columns = self._index[i]
        return self._bytes[offset : offset + rows * columns].reshape(rows, columns)

    def places(self, image_ids: Iterable[str]) -> list[int]:
        """The indices of images, in their order. Raises MiramError naming one that is not in the store."""
        places = []
        for image_id in image_ids:
            if image_id not in self._place:
                raise MiramError(f"The image {image_id} is not in the store {self.paths[0]}.", REMEDY)
            places.append(self._place[image_id])
        return places

    def digest(self, places: Sequence[int]) -> str:
        """Hexadecimal SHA-256 of the sizes and pixels of some images, in their order."""
        digest = hashlib.sha256()
        for place in places:
            digest.update(f"{place} {self[place].shape} ".encode())
            digest.update(self[place].data)
        return digest.hexdigest()
