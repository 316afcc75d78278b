from __future__ import annotations

from pathlib import Path

import pytest

from minibert.data.columns import Columns
from minibert.data.readers import read_examples
from minibert.errors import HubError
from minibert.hub.default_data import Review, parse, split_of, write_splits

SOURCE = (
    "1\t2.5\tGood.\r\n2\t-0.6\tToo tepid\r\n10\t0.0\tNeither\r\n11\t1.0\tGood.\r\n"
    '20\t3.2\tÉlan, “quoted” "text"\r\n21\t-1.8125\tDull.'
).encode()


def test_parse_leaves_later_duplicates_out() -> None:
    assert list(parse(SOURCE)) == [
        Review(1, "2.5", "Good."),
        Review(2, "-0.6", "Too tepid"),
        Review(10, "0.0", "Neither"),
        Review(20, "3.2", 'Élan, “quoted” "text"'),
        Review(21, "-1.8125", "Dull."),
    ]


def test_the_split_is_by_id() -> None:
    splits = [split_of(Review(i, "0", "")) for i in range(10, 20)]
    assert splits == ["test", "validation", *["train"] * 8]


def test_the_files_hold_what_their_readme_says(tmp_path: Path) -> None:
    write_splits(SOURCE, tmp_path)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert "MIT" in written.pop("README.md")
    assert written == {
        "train.tsv": "sentence\tlabel\trating\nToo tepid\tnegative\t-0.6\n",
        "validation.tsv": "sentence\tlabel\trating\n"
        "Good.\tpositive\t2.5\nDull.\tnegative\t-1.8125\n",
        "test.tsv": 'sentence\tlabel\trating\nÉlan, “quoted” "text"\tpositive\t3.2\n',
        "train.regression.tsv": "sentence\tlabel\nToo tepid\t-0.6\n",
        "validation.regression.tsv": "sentence\tlabel\nGood.\t2.5\nDull.\t-1.8125\n",
        "test.regression.tsv": 'sentence\tlabel\nNeither\t0.0\nÉlan, “quoted” "text"\t3.2\n',
    }
    examples = read_examples(tmp_path / "validation.tsv")
    assert examples.columns == Columns("sentence", None, "label")
    assert examples.labels == ["positive", "negative"]


@pytest.mark.parametrize("row", [b"1\t2.0", b"1\t2.0\ta\tb", b"1\t2.0\t "])
def test_a_row_of_another_form_is_refused(row: bytes) -> None:
    with pytest.raises(HubError, match="line 2"):
        list(parse(b"1\t2.0\tfine\r\n" + row))
