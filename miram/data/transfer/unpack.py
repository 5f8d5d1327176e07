"""Unpack the zip of a series with verification.

The NBIA server streams its zips and hides errors while it writes: a short zip arrives with status 200. So the members
must be as many as announced, and have the MD5s listed in `md5hashes.csv`. Names must be plain file names, so that
nothing is written outside the folder.
"""

import csv
import errno
import hashlib
import io
import re
import stat
import zipfile
import zlib
from pathlib import Path

from miram.data.transfer.http import Fault
from miram.data.transfer.receipt import Item

HASHES = "md5hashes.csv"
WITHOUT_HASH = {HASHES, "LICENSE"}
LONGEST_HASHES_BYTES = 10_000_000
PLAIN_DICOM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.dcm", re.ASCII)
CHUNK_BYTES = 1 << 20


def unpack(body: Path, folder: Path, *, images: int, limit_bytes: int) -> list[Item]:
    """Unpack the zip `body` into `folder` and return the verified files, their headers still unread.

    `images`: how many DICOM files the archive announces; `limit_bytes`: their size limit. Raises Fault if
    the zip is broken, short, too long, does not match its hashes, or holds anything but plain files with plain names.
    """
    try:
        with zipfile.ZipFile(body) as archive:
            members = _members(archive, images)
            hashes = _hashes(archive, members)
            items: list[Item] = []
            for member in members:
                item = _write(archive, member, folder, limit_bytes - sum(item.bytes for item in items))
                if item.md5 != hashes[item.file]:
                    raise Fault(f"{item.file} has MD5 {item.md5}, not {hashes[item.file]} as {HASHES} says")
                items.append(item)
            return items
    # RuntimeError: an encrypted member; NotImplementedError: an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise Fault(f"the zip is broken or cut short: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # the zip points before its beginning; other errors are the disk's
            raise
        raise Fault(f"the zip is broken: {error}") from error


def _members(archive: zipfile.ZipFile, images: int) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise Fault(f"the zip holds {next(name for name in names if names.count(name) > 1)!r} more than once")
    members = [info for info in infos if info.filename not in WITHOUT_HASH]
    for info in members:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not PLAIN_DICOM_NAME.fullmatch(info.filename) or kind not in (0, stat.S_IFREG):
            raise Fault(f"the zip holds {info.filename!r}, which is not a plain DICOM file")
    if len(members) != images:
        raise Fault(f"the zip holds {len(members)} images, the archive announces {images}")
    return members


def _hashes(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> dict[str, str]:
    try:
        with archive.open(HASHES) as stream:
            text = stream.read(LONGEST_HASHES_BYTES).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        hashes = {row["Filename"].strip(): row["MD5Hash"].strip().lower() for row in rows}
    except (KeyError, AttributeError, UnicodeDecodeError) as error:
        raise Fault(f"the zip holds no readable {HASHES}: {error}") from error
    if set(hashes) != {info.filename for info in members}:
        raise Fault(f"{HASHES} lists other files than the zip holds")
    return hashes


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, limit_bytes: int) -> Item:
    """Write one member, counting its real size: its header may be wrong."""
    length = 0
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with archive.open(member) as source, open(folder / member.filename, "wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            length += len(chunk)
            if length > limit_bytes:
                raise Fault(f"{member.filename} unpacks to more than the {limit_bytes} bytes allowed")
            md5.update(chunk)
            sha256.update(chunk)
            target.write(chunk)
    return Item(member.filename, length, md5.hexdigest(), sha256.hexdigest(), sop_uid="")
