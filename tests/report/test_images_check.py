"""The page of a look at one's own images."""

import re

import numpy as np

from miram.report.images_check import write_check


def test_the_page_opens_without_a_network_and_shows_each_crop_under_its_class(tmp_path):
    views = [(label, f"<b>{label}.png", np.full((8, 8), 9, np.uint8)) for label in ("<i>one", "two", "two")]
    write_check(tmp_path / "c.html", "mine", "| class | used |\n|:--|:--|\n| <i>one | 1 |", views, "a <fault>")
    text = (tmp_path / "c.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == [] and "http" not in text
    assert text.count("data:image/png;base64,") == 3 and text.index("<h3>two") > text.index("&lt;i&gt;one.png")
    assert re.search(r"<td[^>]*>&lt;i&gt;one</td>", text)
    assert "The run would stop: a &lt;fault&gt;" in text and "8 px" in text
