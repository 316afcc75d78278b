"""Formulas in the words of one pass, and those of the parameters' gradients."""

from __future__ import annotations

import re

from minibert.config import BertConfig
from minibert.verify.trace.catalogue import Row

DROPPED = "d({name})·keep/(1 − p̂)"
_PREFIX = re.compile(r"bert\.(encoder\.layer\.\d+|embeddings)\.")
_MENTION = re.compile(r"{(.+?)}")


def short(name: str) -> str:
    """A tensor's name in the formulas of its own layer."""
    return _PREFIX.sub("", name, count=1)


def worded(rows: list[Row]) -> list[Row]:
    """The rows of one pass, with formulas that name the dropouts among them.

    A tensor X that is dropped gets its gradient from the dropout, and the dropout gets what X would
    get without it. Where a formula says {X}, what is meant is X.dropout's result, if there is one.
    """
    dropouts = {row.instead: row.name for row in rows if row.instead}
    whole = {row.name: row for row in rows}

    def in_words(row: Row, formula: str) -> str:
        found = _PREFIX.match(row.name)
        prefix = found[0] if found else ""

        def name(mention: re.Match[str]) -> str:
            full = prefix + mention[1]
            return dropouts.get(full, full).removeprefix(prefix)

        return _MENTION.sub(name, formula)

    def of_gradient(row: Row) -> str:
        if row.name in dropouts:
            return DROPPED.format(name=short(dropouts[row.name]))
        return in_words(row, whole[row.instead].backward if row.instead else row.backward)

    return [
        row._replace(formula=in_words(row, row.formula), backward=of_gradient(row)) for row in rows
    ]


def of_parameter(name: str, row: Row, config: BertConfig, decoder: Row | None) -> str:
    """The formula of the gradient of a parameter: `row` is its module's, `worded`.

    decoder: that of a decoder whose weight is the word table.
    """
    if name.endswith("_embeddings.weight"):
        return _of_table(row, config, decoder)
    y, summed = short(row.name), f"over the {row.axes}"
    x = row.formula.partition("·weight")[0]
    if name.endswith(".bias"):
        return f"Σ d({y}) {summed}"
    if y.endswith("LayerNorm"):
        return f"Σ d({y})·x̂ {summed}, x̂ = {x}"
    return f"d({y})ᵀ·{x}, summed {summed}"


def _of_table(row: Row, config: BertConfig, decoder: Row | None) -> str:
    """What each row of a table gets; that the padding token's gets nothing is no derivative."""
    name, padding = short(row.name), config.pad_token_id
    if name == "position_embeddings":
        return row.backward  # by columns too
    if name == "token_type_embeddings":
        return "row i: Σ d(sum) over the tokens with token_type_id i"
    formula = "row i: Σ d(sum) over the tokens with input_id i"
    if padding is not None:
        formula += f", but row {padding} (pad_token_id) gets none of it, even where that token is "
        formula += "attended to"
    if decoder is not None:
        x = decoder.formula.partition("·(word table)")[0]
        formula += f"; plus d({decoder.name})ᵀ·{x}, summed over the tokens, in all rows: the "
        formula += "decoder is this table"
    return formula
