"""`lrmoclip readme`: places in documents are filled, and nobody's file is written over."""

import shutil

import pytest

from lrmoclip.cli.commands import readme
from lrmoclip.core.errors import UserError
from tests.support import ROOT

CLAIMS = ROOT / "workflow" / "config" / "claims.yaml"


@pytest.fixture
def kept(tmp_path):
    source = ROOT / "results" / "reference"
    return shutil.copytree(source, tmp_path / "reference")


def test_a_place_is_filled_and_the_rest_stays(kept, tmp_path):
    document = tmp_path / "own.md"
    document.write_text("before\n<!-- claims -->\nwhat was\n<!-- end of claims -->\nafter\n")

    readme.run(CLAIMS, kept, [document])

    text = document.read_text()
    assert text.startswith("before\n<!-- claims -->\n|") and text.endswith("claims -->\nafter\n")
    assert "what was\n" not in text and "C9" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [("no place", "no place for claims or speed"), ("<!-- claims -->\n", "one pair of markers")],
)
def test_a_document_without_a_place_is_named(kept, tmp_path, text, words):
    document = tmp_path / "own.md"
    document.write_text(text)

    with pytest.raises(UserError, match=words):
        readme.run(CLAIMS, kept, [document])

    assert document.read_text() == text


def test_a_readme_that_someone_wrote_is_spared(kept, tmp_path):
    document, own = tmp_path / "own.md", kept / "micro" / "README.md"
    document.write_text("<!-- claims -->\n<!-- end of claims -->\n")
    own.write_text("my notes")

    with pytest.raises(UserError, match="not made by us"):
        readme.run(CLAIMS, kept, [document])

    assert own.read_text() == "my notes"
    assert document.read_text() == "<!-- claims -->\n<!-- end of claims -->\n"


def test_nothing_kept_is_said(tmp_path):
    with pytest.raises(UserError, match="no scale's tables"):
        readme.run(CLAIMS, tmp_path, [])
