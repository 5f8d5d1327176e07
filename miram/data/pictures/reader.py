"""One reader for every picture that a user brings."""

from pathlib import Path

from miram.data.pictures.levels import WINDOW
from miram.data.pictures.picture import Picture, PictureError
from miram.data.pictures.pillow import STARTS, pillow_size, read_pillow
from miram.errors import MiramError

HEAD_BYTES = 132  # of a DICOM file, which end in a mark (PS3.10, 7.1)
BARE = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")  # how data elements begin where the mark is missing


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
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise MiramError(f"{path} {_fault(path, error)}", "Check its path, its permissions and its disk.") from error
    if has_mark(head) or head.startswith(BARE):
        return True
    if not head.startswith(tuple(start for starts in STARTS.values() for start in starts)):
        raise PictureError(f"{path} cannot be decoded: it is not DICOM, PNG, TIFF, JPEG or PGM.")
    return False


def has_mark(head: bytes) -> bool:
    """Whether the first HEAD_BYTES of a file are those of a DICOM file."""
    return head[128:] == b"DICM"


def why_absent(path: Path) -> str:
    """Why there is no file at a path, in words; empty if there is one."""
    if path.is_file():
        return ""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, where there is no file"
    return "is a folder" if path.is_dir() else "does not exist"


def _fault(path: Path, error: OSError) -> str:
    return f"cannot be read: it {why_absent(path)}" if why_absent(path) else f"cannot be read: {error.strerror}"
