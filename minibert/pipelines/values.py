"""A text, words or an object, as people write them → what the pipeline of a task takes.

The names in an object are those of transformers' pipelines or of training files, and where it has
none of these, its first columns, as in training (`minibert.data.columns`); what else it holds is
ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from minibert.data.columns import Named, choose_columns
from minibert.data.conll import WORDS
from minibert.data.multiple_choice import CHOICES, asked
from minibert.data.text_files import Problem, brief


class Shared(NamedTuple):
    """What all inputs have in common."""

    context: str | None = None  # of questions
    choices: Sequence[str] | None = None
    columns: Named = Named()  # of tables and objects


def value_of(task: str, given: Any, shared: Shared) -> Any:
    """What the pipeline takes; Problem for what it cannot."""
    if isinstance(given, list) and task != "token-classification":
        hint = "; write what it holds one a line" if any(isinstance(v, dict) for v in given) else ""
        raise Problem(f"a text or an object {{...}} is wanted, got {brief(given)}{hint}")
    if not isinstance(given, str | dict | list):
        raise Problem(f"a text in quotes or an object {{...}} is wanted, got {brief(given)}")
    return VALUES[task](given, shared)


def _one_text(given: Any, shared: Shared) -> Any:
    if isinstance(given, str):
        return given
    one, two = _pair(given, shared.columns)
    if two is not None:
        raise Problem("one text is wanted, got a pair of texts")
    return one


def _text_or_pair(given: Any, shared: Shared) -> Any:
    one, two = _pair(given, shared.columns)
    return one if two is None else {"text": one, "text_pair": two}


def _two_texts(given: Any, shared: Shared) -> Any:
    one, two = _pair(given, shared.columns)
    if two is None:
        raise Problem("two texts are wanted, a tab between them, got one")
    return {"text": one, "text_pair": two}


def _text_or_words(given: Any, shared: Shared) -> Any:
    if isinstance(given, list):
        return _texts({"words": given}, "words")
    names = [name for name in WORDS if name in given] if isinstance(given, dict) else []
    return _texts(given, names[0]) if names else _one_text(given, shared)


def _compared(given: Any, shared: Shared) -> Any:
    if isinstance(given, dict) and "sentences" in given:
        source, others = _text(given, "source_sentence"), _texts(given, "sentences")
        return {"source_sentence": source, "sentences": others}
    one, two = _pair(given, shared.columns)
    if two is None:
        raise Problem("there is no second text after a tab to compare the first with")
    return {"source_sentence": one, "sentences": [two]}


def _question(given: Any, shared: Shared) -> Any:
    everywhere = {} if shared.context is None else {"context": shared.context}
    if isinstance(given, dict):
        own = everywhere | given
        if "context" not in own:
            raise Problem("'context' is missing; pass --context or --context_file for all")
        return {name: _text(own, name) for name in ("question", "context")}
    if everywhere:
        return {"question": given} | everywhere
    question, tab, context = given.partition("\t")
    if not tab:
        raise Problem("there is no context after a tab; pass --context or --context_file for all")
    return {"question": question, "context": context}


def _choice(given: Any, shared: Shared) -> Any:
    own = given if isinstance(given, dict) else {"question": given}
    if shared.choices is not None and not any(name in own for name in CHOICES):
        own = own | {"choices": list(shared.choices)}
    if own.keys() == {"question"}:
        raise Problem('there are no choices; pass --choices "one" "another" for all')
    first, choices = asked(own)
    return {"question": first, "choices": choices}


VALUES: dict[str, Callable[[Any, Shared], Any]] = {
    "feature-extraction": _one_text,
    "fill-mask": _one_text,
    "multiple-choice": _choice,
    "next-sentence-prediction": _two_texts,
    "question-answering": _question,
    "sentence-similarity": _compared,
    "text-classification": _text_or_pair,
    "token-classification": _text_or_words,
}


def _pair(given: Any, named: Named) -> tuple[str, str | None]:
    """The text, and the second one if there is one."""
    if isinstance(given, str):
        one, tab, two = given.partition("\t")
        return one, two if tab else None
    try:
        first, second, _ = choose_columns(list(given), named)
    except Problem as problem:
        wanted = str(problem) if any(named) else 'an object {"text": …} is wanted'
        raise Problem(f"{wanted}, got {brief(given)}") from None
    alone = second is None or given[second] is None
    return _text(given, first), None if alone else _text(given, str(second))


def _text(given: Mapping[str, Any], name: str) -> str:
    if name not in given:
        raise Problem(f"{name!r} is missing; got {brief(list(given))}")
    value = given[name]
    if isinstance(value, str):
        return value
    raise Problem(f"{name!r} must be a text, got {brief(value)}")


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name)
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return value
    raise Problem(f"{name!r} must be a list of texts, got {brief(value)}")
