"""Answers that go wrong, each as the archive or the network has been seen or must be expected to give them."""

import email.utils
import hashlib
import io
import socket
import stat
import struct
import warnings
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

from tiny_archive import FILM_SHAPE, dicom_bytes, mask_of, send, zip_bytes


def made_zip(*entries: tuple[str | zipfile.ZipInfo, bytes], hashes: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in (*entries, ("md5hashes.csv", hashes.encode())):
            archive.writestr(name, body)
    return stream.getvalue()


def hash_list(files: dict[str, bytes]) -> str:
    return "Filename,MD5Hash\n" + "".join(f"{name},{hashlib.md5(body).hexdigest()}\n" for name, body in files.items())


def status(code: int, **headers: str):
    return lambda handler, files: send(handler, b"busy", code, **headers)


def reset(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    """End the connection with a RST in the middle of the body."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(zip_bytes(files)[:50])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    """Begin an answer and send no more of it; not among FAULTS, since its tests need a time limit of their own."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"PK")
    handler.wfile.flush()
    handler.connection.settimeout(120.0)
    with suppress(OSError):
        handler.connection.recv(1)  # until the client has had enough and goes


def html(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, b"<html><body>Scheduled maintenance</body></html>", Content_Type="text/html")


def nothing(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, b"")


def short(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(files)[:-40])


def shorter_than_announced(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    body = zip_bytes(files)
    send(handler, body[:-40], Content_Length=str(len(body)))


def fewer_members(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(dict(list(files.items())[:1])))


def wrong_md5(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes({name: body[:-1] + b"?" for name, body in files.items()}, hashes=files))


def other_names_wrong_md5(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    """What was unpacked of it must not lie beside the files of the next try."""
    renamed_files = {f"9-{name}": body for name, body in files.items()}
    send(handler, zip_bytes(renamed_files, hashes=renamed_files | {max(renamed_files): b"another"}))


def no_hashes(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    send(handler, stream.getvalue())


def hashes_of_others(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(files, hashes={"other.dcm": b""}))


def unreadable_hashes(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, made_zip(*files.items(), hashes="nothing,here\n1,2\n"))


def renamed(name: str, kind: int = 0):
    """The first file gets another name, or is another kind of file."""

    def answer(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
        first, *rest = files
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        entries = [(info, files[first]), *((other, files[other]) for other in rest)]
        send(handler, made_zip(*entries, hashes=hash_list({name: files[first]} | {o: files[o] for o in rest})))

    return answer


def duplicate(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    name = next(iter(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the duplicate
        body = made_zip(*files.items(), (name, b"again"), hashes=hash_list(files))
    send(handler, body)


def leads_before_its_beginning(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    """The end of the zip says that its list of files begins later than it does."""
    body = zip_bytes(files)
    begins = body.rindex(b"PK\5\6") + 16
    later = struct.pack("<I", struct.unpack_from("<I", body, begins)[0] + 100)
    send(handler, body[:begins] + later + body[begins + 4 :])


BOMB = zip_bytes({"1-1.dcm": bytes(800_000), "1-2.dcm": bytes(800_000)})  # each alone is below the bound


def bomb(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, BOMB)


def endless(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"PK")
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        handler.close_connection = True


def another_series(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes({name: dicom_bytes(mask_of(FILM_SHAPE), "9.9.9") for name in files}))


FAULTS = {
    "500": (status(500), "HTTP status 500: busy"),
    "429": (status(429, Retry_After="0"), "HTTP status 429"),
    "503 with a date": (status(503, Retry_After=email.utils.formatdate(0)), "HTTP status 503"),
    "503 with nonsense": (status(503, Retry_After="soon"), "HTTP status 503"),
    "reset": (reset, "reset|Connection"),
    "html": (html, "no zip but text/html, which begins with .<html>"),
    "empty body": (nothing, "no zip"),
    "short zip": (short, "broken or cut short"),
    "wrong place": (leads_before_its_beginning, "the zip is broken"),
    "shorter than announced": (shorter_than_announced, "IncompleteRead"),
    "missing member": (fewer_members, "holds 1 images, the archive announces 2"),
    "wrong MD5": (wrong_md5, r"has MD5 \w+, not \w+ as md5hashes"),
    "other names, wrong MD5": (other_names_wrong_md5, r"9-1-2.dcm has MD5 \w+, not \w+ as md5hashes"),
    "no hashes": (no_hashes, "no readable md5hashes"),
    "hashes of others": (hashes_of_others, "lists other files"),
    "unreadable hashes": (unreadable_hashes, "no readable md5hashes"),
    "traversal": (renamed("../../1-1.dcm"), "not a plain DICOM file"),
    "absolute name": (renamed("/tmp/1-1.dcm"), "not a plain DICOM file"),
    "backslash": (renamed("..\\1-1.dcm"), "not a plain DICOM file"),
    "symlink": (renamed("1-1.dcm", stat.S_IFLNK), "not a plain DICOM file"),
    "another kind": (renamed("receipt.csv"), "not a plain DICOM file"),
    "duplicate": (duplicate, "more than once"),
    "bomb": (bomb, "unpacks to more than"),
    "endless body": (endless, "longer than"),
    "another series": (another_series, r"belongs to series 9\.9\.9"),
}
