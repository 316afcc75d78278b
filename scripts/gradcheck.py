#!/usr/bin/env python3
"""Check every gradient of every layer, and of whole models, against numerical derivatives.

    python scripts/gradcheck.py                     every layer and a 2-layer model, complex step
    python scripts/gradcheck.py --method all        finite differences and Ridders too
    python scripts/gradcheck.py --layer attention   one layer
    python scripts/gradcheck.py --base              and a random model of BERT-base's size (8 GB)

Exits with status 1 if any tensor is out of bounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.io.command_line import Parser, run
from minibert.io.numbers import counted
from minibert.models import BertForSequenceClassification
from minibert.verify.derivatives import METHODS
from minibert.verify.gradcheck import Check, check_layer, check_model
from minibert.verify.layer_cases import LayerCase, layer_cases
from minibert.verify.model_cases import (
    DROPOUT,
    KINDS,
    LENGTHS,
    SHARP,
    random_model,
    small_config,
)


def main() -> int:
    args = parse_arguments()
    methods = list(METHODS) if args.method == "all" else [args.method]
    cases = layer_cases(args.seed)
    known = [case.layer for case in cases]
    if args.layer and args.layer not in known:
        raise InputError(f"unknown layer {args.layer!r}: choose one of {', '.join(known)}")
    cases = [case for case in cases if args.layer in (None, case.layer)]
    checks = []
    if not args.json:
        print(HEADER)
    for check in all_checks(cases, methods, args):
        checks.append(check)
        if not args.json:
            print(row(check), flush=True)
    failed = [check for check in checks if not check.passed]
    if args.json:
        rows = [check._asdict() | {"passed": check.passed} for check in checks]
        print(json.dumps(rows, indent=1))
    else:
        worst = max(check.error / check.bound for check in checks)
        print(f"\n{counted(len(checks), 'tensor')} checked, {len(failed)} failed")
        print(f"worst error/bound: {worst:.2g}")
    for check in failed:
        print(f"FAILED {check}", file=sys.stderr)
    return 1 if failed else 0


def all_checks(
    cases: list[LayerCase], methods: list[str], args: argparse.Namespace
) -> Iterator[Check]:
    for method in methods:
        for case in cases:
            yield from check_layer(case, method, args.seed)
        if args.layer:
            continue
        for name, (kind, changes) in KINDS.items():
            model, batch = random_model(kind, small_config(**changes), LENGTHS, args.seed, SHARP)
            for check in check_model(model, batch, DROPOUT, method, seed=args.seed):
                yield check._replace(where=f"2 layers, {name}")
    if args.base:
        config = BertConfig(num_labels=3)
        model, batch = random_model(BertForSequenceClassification, config, (7, 12), args.seed)
        for check in check_model(model, batch, DROPOUT, tensors=False, seed=args.seed):
            yield check._replace(where="BERT-base, random")


HEADER = f"{'layer or model':<40} {'tensor':<58} {'method':<19} {'|g·d|':>9} {'error':>8}  bound"


def row(check: Check) -> str:
    verdict = "ok" if check.passed else "FAILED"
    kind = " (absolute: zero)" if check.is_zero else ""
    return (
        f"{check.where:<40} {check.tensor:<58} {check.method:<19} {check.norm:9.2e} "
        f"{check.error:8.1e}  {check.bound:.0e} {verdict}{kind}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--method", choices=[*METHODS, "all"], default="complex-step",
        help="of numerical derivatives (default complex-step)",
    )  # fmt: skip
    parser.add_argument("--layer", metavar="NAME", help="one layer only, without the models")
    parser.add_argument("--base", action="store_true", help="a model of BERT-base's size as well")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all random numbers (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="the results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
