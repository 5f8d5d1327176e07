"""One reader for every picture that a user brings."""

from pathlib import Path

from miram.data.pictures.levels import WINDOW
from miram.data.pictures.picture import Picture, PictureError
from miram.data.pictures.pillow import pillow_size, read_pillow
from miram.errors import MiramError

DICOM_MARK = (128, b"DICM")  # place and bytes of the mark of a DICOM file (PS3.10, 7.1)
BARE = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")  # how data elements begin where the mark is missing
PICTURES = {  # how the files begin that Pillow is asked about
    **{"PNG": (b"\x89PNG",), "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "JPEG": (b"\xff\xd8",)},
    **{"PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), "BMP": (b"BM",)},
    "JPEG2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"),
}


def read_picture(path: Path, levels: str) -> Picture:
    """The one grey picture of a file, recognised by its first bytes, not its name; `levels` as in `pictures.levels`.

    Raises PictureError with the reason when it holds none, more than one or colours, and MiramError when the file
    cannot be opened.
    """
    from miram.data.pictures.dicom import read_dicom  # pydicom: trainings, which import this, read no picture

    path = Path(path)
    picture = read_dicom(path, windowed=levels == WINDOW) if _is_dicom(path) else read_pillow(path)
    if not picture.pixels.size:
        raise PictureError(f"{path} holds no pixel.")
    return picture


def count_pixels(path: Path) -> int:
    """How many pixels a file says that its picture has, by its header; 0 where it says none and will be set aside."""
    from miram.data.pictures.dicom import dicom_size  # as above

    try:
        rows, columns = dicom_size(path) if _is_dicom(path) else pillow_size(path)
    except MiramError:
        return 0
    return rows * columns


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its mark; otherwise Pillow is asked. Raises as `read_picture`."""
    place, mark = DICOM_MARK
    try:
        with open(path, "rb") as stream:
            head = stream.read(place + len(mark))
    except OSError as error:
        raise MiramError(f"{path} {_fault(path, error)}", "Check its path, its permissions and its disk.") from error
    if head[place:] == mark or head.startswith(BARE):
        return True
    if not head.startswith(tuple(start for starts in PICTURES.values() for start in starts)):
        raise PictureError(f"{path} cannot be decoded: it is not DICOM, PNG, TIFF, JPEG or PGM.")
    return False


def why_absent(path: Path) -> str:
    """Why there is no file at a path, in words; empty if there is one."""
    if path.is_file():
        return ""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, where there is no file"
    return "is a folder" if path.is_dir() else "does not exist"


def _fault(path: Path, error: OSError) -> str:
    return f"cannot be read: it {why_absent(path)}" if why_absent(path) else f"cannot be read: {error.strerror}"
