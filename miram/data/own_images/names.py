"""Names: an id per lesion, and words of a table that mean the same but are spelled differently."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

SUFFIX = re.compile(r"\.[A-Za-z]\w{1,7}$", re.ASCII)  # file name extension; the last number of a UID is not one
LONGEST = 120  # bytes of a name in an id: a file's name has 255 at most
DIGITS = 10  # of the digest in an id: a collision among a million lesions has a chance of one in two million
NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?", re.ASCII)


def lesion_id(image: str, place: str) -> str:
    """An id that is also a file name: the path in readable letters, and a digest of the path and the lesion's position.

    It depends on nothing else, so no other row of the table changes it.
    """
    readable = re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", SUFFIX.sub("", image)))
    readable = readable.encode()[:LONGEST].decode(errors="ignore")
    digest = hashlib.sha256("\0".join((image, place)).encode()).hexdigest()
    return f"Image_{readable}_{digest[:DIGITS]}"


def written_differently(words: Iterable[str]) -> list[str]:
    """The first group of words that differ only in case, blanks or number format, each with its count."""
    meant: dict[str, Counter[str]] = {}
    for word in words:
        meant.setdefault(_meaning(word), Counter())[word] += 1
    found = next((counts for counts in meant.values() if len(counts) > 1), Counter())
    return [f"{word!r} ({count})" for word, count in found.items()]


def _meaning(word: str) -> str:
    plain = "".join(unicodedata.normalize("NFKC", word).casefold().split())
    return str(Fraction(plain.replace(",", "."))) if NUMBER.fullmatch(plain) else plain
