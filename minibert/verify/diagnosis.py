"""Why is it wrong? Each known mistake is made on purpose, and the result held beside what came out.

A cause is named only if it explains every tensor that was given, to within the error budget, and
if these tell so much that it is no accident (`evidence`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from minibert.verify import direct_causes as direct
from minibert.verify import evidence
from minibert.verify.budget import section_of
from minibert.verify.compare import Comparison, Row, as_stored
from minibert.verify.fit import SLACK, Fit, fit_of
from minibert.verify.hypotheses import HYPOTHESES, Guess
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup

FEW = 3
"""Causes of which each may explain a part."""

BESIDE = 2
"""Tensors that are out, of which a cause must explain as many to be named for a part."""


class Diagnosis(NamedTuple):
    """The likely cause, or why there is none."""

    causes: tuple[str, ...]  # more than one: the tensors given cannot tell them apart
    tried: int
    partly: tuple[tuple[str, ...], str] | None = None  # (what explains the first, where that ends)
    too_few: str = ""  # the dtype, of whose numbers there are too few to tell mistakes apart
    nearly: bool = False  # more is left than rounding explains
    failed: tuple[str, ...] = ()  # guesses that could not be tried, and their errors

    def __str__(self) -> str:
        if not self.failed:
            return self._likely()
        count, first = len(self.failed), self.failed[0]
        return (
            f"{self._likely()} ({count} of the guesses could not be tried, which is an error in "
            f"minibert, please report it: {first})"
        )

    def _likely(self) -> str:
        if self.causes:
            nearly = ", or nearly that: a constant may be off" if self.nearly else ""
            return "; or ".join(self.causes) + nearly
        if self.partly:
            causes, where = self.partly
            return f"{'; or '.join(causes)}; but from {where} on something else is wrong as well"
        if self.too_few:
            wider = {"float64": "", "float32": ", or float64"}.get(self.too_few, ", or float32")
            return f"unknown: too few numbers of {self.too_few} to tell: hand in more{wider}"
        return f"unknown: none of {self.tried} known mistakes gives these tensors"


def diagnose(comparison: Comparison, trace: Trace, setup: Setup) -> Diagnosis:
    """The known mistakes that give exactly these tensors. setup: `setup_of(trace)`."""
    first = comparison.first_out
    if first is None:
        return Diagnosis((), 0)
    if cause := direct.given(comparison, trace, first) or direct.rounded(comparison):
        return Diagnosis((cause,), 1)
    comparison = as_stored(comparison)
    first = comparison.first_out or first
    scaled = direct.scaled(comparison, trace)
    needed, search, doubtful = _needed(setup, comparison), _Search(comparison, trace, first), False
    for section in _sections(first.name):
        found, sure = search.among(section, needed)
        if sure:
            causes = (*found, *([scaled.cause] if scaled and scaled.is_plain else []))
            nearly = all(fit.off for fit in found.values())
            return search.result(causes, nearly=nearly)
        doubtful |= bool(found)
    if scaled:
        return search.result((scaled.cause,))
    if cause := direct.of_lower_precision(comparison, first):
        return search.result((cause,))
    if causes := search.near():
        return search.result(causes, nearly=True)
    too_few = doubtful or not search.could_tell()
    return search.result((), search.part(), comparison.dtype if too_few else "")


class _Search:
    """The guesses that were tried."""

    def __init__(self, comparison: Comparison, trace: Trace, first: Row) -> None:
        self.comparison, self.trace, self.first = comparison, trace, first
        self.out = {row.name for row in comparison.rows if not row.passed}
        self.tried, self.failed = 0, list[str]()
        self.nearly: dict[str, Fit] = {}
        self.partly: dict[tuple[int, str], dict[str, Fit]] = {}  # where they end → causes

    def among(self, section: str, setup: Setup) -> tuple[dict[str, Fit], bool]:
        """The causes in a section that fit best, and whether that is no accident."""
        found: dict[str, Fit] = {}
        rivals = 0  # guesses that what is right does not deny
        for guess in self._guesses(section, setup):
            fit = self._fit(guess)
            if fit is None:
                continue
            rivals += fit.out is None or fit.out.order >= self.first.order
            if fit.out is None:
                found[guess.cause] = min(fit, found.get(guess.cause, fit), key=lambda f: f.share)
            elif fit.near:
                self.nearly[guess.cause] = fit
            elif fit.explained >= BESIDE and fit.out.name in self.out:  # or the guess is denied
                self.partly.setdefault((fit.out.order, fit.out.name), {})[guess.cause] = fit
        best = _best(found)
        told = max((fit.bits for fit in best.values()), default=0.0)
        return best, bool(best) and told >= evidence.needed(rivals)

    def could_tell(self) -> bool:
        """Whether a guess within the budgets would be believed."""
        told = sum(
            evidence.bits(row, self.comparison.settled[row.name], row.budget, self.comparison.dtype)
            for row in self.comparison.rows
        )
        return told >= evidence.needed(self.tried)

    def near(self) -> tuple[str, ...]:
        """The cause that comes nearest, although rounding does not explain what is left."""
        cause, fit = max(self.nearly.items(), key=lambda item: item[1].bits, default=("", None))
        return (cause,) if fit and fit.bits >= evidence.needed(self.tried) else ()

    def part(self) -> tuple[tuple[str, ...], str] | None:
        """The causes that explain the most, and where that ends; of many none is likely."""
        if not self.partly:
            return None
        end = max(self.partly)
        bits = evidence.needed(self.tried)
        causes = tuple(cause for cause, fit in self.partly[end].items() if fit.bits >= bits)
        return (causes, end[1]) if 0 < len(causes) <= FEW else None

    def result(
        self,
        causes: tuple[str, ...],
        part: tuple[tuple[str, ...], str] | None = None,
        too_few: str = "",
        nearly: bool = False,
    ) -> Diagnosis:
        return Diagnosis(causes, self.tried, part, too_few, nearly, tuple(self.failed))

    def _guesses(self, section: str, setup: Setup) -> Iterator[Guess]:
        for hypothesis in HYPOTHESES[section]:
            try:
                yield from list(hypothesis(setup, self.first.name))
            except Exception as error:  # ours: it must not take the comparison with it
                self._fails(hypothesis.__name__, error)

    def _fit(self, guess: Guess) -> Fit | None:
        self.tried += 1
        try:
            return fit_of(guess, self.comparison, self.trace)
        except Exception as error:
            self._fails(guess.cause, error)
            return None

    def _fails(self, guess: str, error: Exception) -> None:
        self.failed.append(f"{guess}: {type(error).__name__}: {error}")


def _best(found: Mapping[str, Fit]) -> dict[str, Fit]:
    """The causes that fit about as well as the best."""
    smallest = min((fit.share for fit in found.values()), default=0.0)
    bound = max(1.0, SLACK / 2 * smallest)
    return {cause: fit for cause, fit in found.items() if fit.share <= bound}


def _sections(first: str) -> list[str]:
    """Where to look: first where it shows, then at what comes before that."""
    order = list(HYPOTHESES)
    here = (
        order.index(first.split("/", maxsplit=1)[0])
        if first.split("/", maxsplit=1)[0] in order
        else 0
    )
    return [order[here], *reversed(order[:here])]


def _needed(setup: Setup, comparison: Comparison) -> Setup:
    """The setup without the passes of which no tensor was given."""
    sections = {section_of(row.name).split("/")[0] for row in comparison.rows}
    if "dropout" not in sections:
        setup = setup.replace(dropout=None)
    if "training" not in sections or setup.recipe is None:
        return setup.replace(recipe=None)
    trained = [row.name.split("/") for row in comparison.rows if row.name.startswith("training/")]
    rules = tuple(rule for rule in setup.recipe.rules if any(rule == t[1] for t in trained))
    steps = tuple(s for s in setup.recipe.steps if any(f"step_{s}" == t[2] for t in trained))
    return setup.replace(recipe=replace(setup.recipe, rules=rules, steps=steps))
