import pytest

from tfbig import plots
from tfbig.errors import OutputNotWritable
from tfbig.reporting.document import Page


def test_a_page_holds_tables_pictures_and_text_in_order():
    page = Page("Title", lead="Lead.", footer="Foot.")
    page.table("Table", ["a", "b"], [["1", "2"]])
    page.picture("Picture", plots.folds("accuracy", [0.9, 0.8]), alt="folds")
    page.text("Text", "as it stands")
    html = page.render()
    places = [
        html.index(part) for part in ("<h1>Title", "Lead.", ">Table<", "data:image/png", ">Text<", "Foot.")
    ]
    assert places == sorted(places)


def test_what_is_written_is_text_not_markup():
    page = Page("<b>bold</b>")
    page.table("T", ["<i>"], [["<script>"]])
    page.text("T", "a < b & c")
    html = page.render()
    assert "<script>" not in html
    assert "<b>bold" not in html
    assert "a &lt; b &amp; c" in html


def test_a_dollar_sign_is_no_placeholder():
    page = Page("costs $5 and $title")
    assert "costs $5 and $title" in page.render()


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputNotWritable):
        Page("T").write(tmp_path / "none" / "page.html")
    assert list(tmp_path.iterdir()) == []
