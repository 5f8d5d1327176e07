"""The crop store: every crop decoded once into one flat uint8 file that all processes map into memory."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from miram.errors import MiramError
from miram.files import atomic_path

REMEDY = "Run the stage `pack` again."
INDEX_COLUMNS = ["lesion_id", "offset", "rows", "columns"]


def pack(crops_dir: Path, lesions_csv: Path, store_u8: Path, index_csv: Path) -> dict[str, int]:
    """Decode `crops_dir`/<lesion_id>.png of every row of `lesions_csv` into `store_u8`, one after another, row-major.

    `index_csv` gets one row a crop, in the order of `lesions_csv`: lesion_id, offset (bytes), rows, columns (px). A
    16-bit crop keeps its high byte. Returns the number of crops and of bytes. Raises MiramError naming the file when
    a crop is missing, damaged or not grey.
    """
    index = []
    offset = 0
    with atomic_path(store_u8) as temporary_store, atomic_path(index_csv) as temporary_index:
        with open(temporary_store, "wb") as stream:
            for lesion_id in pd.read_csv(lesions_csv, usecols=["lesion_id"], dtype=str)["lesion_id"]:
                crop = read_crop(Path(crops_dir) / f"{lesion_id}.png")
                stream.write(crop.tobytes())
                index.append((lesion_id, offset, *crop.shape))
                offset += crop.size
        table = pd.DataFrame(index, columns=INDEX_COLUMNS)
        table.to_csv(temporary_index, index=False, lineterminator="\n")
    return {"crops": len(index), "bytes": offset}


def read_crop(png: Path) -> np.ndarray:
    """A grey PNG as (rows, columns) uint8; of 16 bits the high byte. Raises MiramError naming the file."""
    remedy = "Delete it and run the stage `crops` again."
    try:
        with Image.open(png) as image:
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise MiramError(f"The crop {png} is missing.", "Run the stage `crops` again.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG chunk
        raise MiramError(f"The crop {png} cannot be decoded: {error}.", remedy) from error
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
        raise MiramError(
            f"The crop {png} is no grey image of 8 or 16 bits: shape {pixels.shape}, type {pixels.dtype}.", remedy
        )
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


class Store:
    """A packed store, read through a memory map; `store[i]` is crop i as a read-only (rows, columns) uint8 array."""

    def __init__(self, store_u8: Path, index_csv: Path) -> None:
        """Raises MiramError when a file is missing or the two do not belong together."""
        self.paths = (Path(store_u8), Path(index_csv))
        try:
            index = pd.read_csv(index_csv, dtype={"lesion_id": str})
            size = os.path.getsize(store_u8)
        except FileNotFoundError as error:
            raise MiramError(f"{error.filename} is missing.", REMEDY) from error
        if list(index.columns) != INDEX_COLUMNS or size == 0 or size != (index["rows"] * index["columns"]).sum():
            raise MiramError(f"{index_csv} does not describe the {size} bytes of {store_u8}.", REMEDY)
        self.lesion_ids = index["lesion_id"].tolist()
        self._index = index[["offset", "rows", "columns"]].to_numpy().tolist()
        self._place = {lesion_id: i for i, lesion_id in enumerate(self.lesion_ids)}
        self._bytes = np.memmap(store_u8, dtype=np.uint8, mode="r")

    def __reduce__(self) -> tuple:
        return Store, self.paths  # a worker process maps the file again; the bytes are not sent

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> np.ndarray:
        offset, rows, columns = self._index[i]
        return self._bytes[offset : offset + rows * columns].reshape(rows, columns)

    def places(self, lesion_ids: Iterable[str]) -> list[int]:
        """The indices of lesions, in their order. Raises MiramError naming one that is not in the store."""
        places = []
        for lesion_id in lesion_ids:
            if lesion_id not in self._place:
                raise MiramError(f"Lesion {lesion_id} is not in the store {self.paths[0]}.", REMEDY)
            places.append(self._place[lesion_id])
        return places

    def digest(self, places: Sequence[int]) -> str:
        """Hexadecimal SHA-256 of the sizes and pixels of some crops, in their order."""
        digest = hashlib.sha256()
        for place in places:
            digest.update(f"{place} {self[place].shape} ".encode())
            digest.update(self[place])
        return digest.hexdigest()
