#!/usr/bin/env python3
"""Hold another BERT against this one: golden traces, comparison, certificate.

    python scripts/crosscheck.py trace nano                    a standard trace: nano, minilm, base
    python scripts/crosscheck.py trace --model DIR --text "…"  a trace of any checkpoint
    python scripts/crosscheck.py compare MINE GOLDEN           which tensor is wrong first, and why
    python scripts/crosscheck.py against transformers          a live PyTorch model, with hooks
    python scripts/crosscheck.py budget GOLDEN                 errors of float32, NumPy and PyTorch
    python scripts/crosscheck.py certify                       every gradient, in every precision

MINE is a .safetensors or .npz file with any of the trace's tensors, GOLDEN a trace (nano, where
there is no such file, is made on the spot). Exits with status 0 if everything is within its budget,
1 if not, 2 for an input to mend.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from pathlib import Path

from minibert.io.command_line import Parser, run
from minibert.verify import inputs
from minibert.verify.budget import UNIT
from minibert.verify.budget_table import (
    budget_table,
    has_pytorch,
    measure_pytorch,
    read_pytorch,
    write_pytorch,
)
from minibert.verify.compare import as_stored, compare, read_arrays, read_mapping
from minibert.verify.diagnosis import diagnose
from minibert.verify.report import as_dict, as_text
from minibert.verify.trace.catalogue import HEADS
from minibert.verify.trace.format import Trace
from minibert.verify.trace.standard import STANDARD, open_trace, standard_setup, write_standard
from minibert.verify.trace.writing import check_weights, setup_of, write_trace


def main() -> int:
    args = parse_arguments()
    return args.command(args)


def trace(args: argparse.Namespace) -> int:
    """Write a golden trace: a standard one, or one of any checkpoint."""
    path = Path(args.output or args.standard or "trace")
    path = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    if args.standard:
        inputs.refuse_beside(args.standard, args, HEADS)
        count = write_standard(args.standard, path)
    else:
        setup, elsewhere = inputs.setup_from(args)
        count = write_trace(path, setup, limit=args.limit, elsewhere=elsewhere)
    print(f"wrote {path}.safetensors and {path}.json: {count} tensors")
    if not args.standard and not setup.has_loss:
        print("no labels: no loss, no gradients")
    if args.pytorch:
        setup = standard_setup(args.standard)[0] if args.standard else setup
        made = Trace.open(path)
        print(f"wrote {write_pytorch(made, measure_pytorch(made, setup))}")
    return 0


def compare_files(args: argparse.Namespace) -> int:
    """Your tensors against a trace: which one is wrong first, and the likely cause."""
    golden = open_trace(args.golden)
    mine, dtype = read_arrays(Path(args.mine))
    mapping = read_mapping(Path(args.map)) if args.map else {}
    for name in (name for name, target in mapping.items() if target and name not in mine):
        print(f"the mapping file names {name!r}, which {args.mine} lacks", file=sys.stderr)
    return report(args, golden, mine, dtype, mapping)


def report(args, golden, mine, dtype, mapping=None) -> int:
    """Compare, diagnose where something is out, and print."""
    weights = weight_file(args, golden)
    comparison = compare(mine, golden, dtype=args.dtype or dtype, mapping=mapping)
    comparison = comparison if args.dtype else as_stored(comparison)
    diagnosis, first = None, comparison.first_out
    wanted = first and not math.isnan(first.error) and not args.no_diagnosis
    absent = golden.about["weights"].get("file") if weights is None else None
    if wanted and not absent:
        diagnosis = diagnose(comparison, golden, setup_of(golden, weights))
    if args.json:
        print(json.dumps(as_dict(comparison, diagnosis), indent=1))
    else:
        print(as_text(comparison, diagnosis, only_out=args.only_out))
    if wanted and absent:
        line = f"likely cause: not looked for; name {absent} with --weights"
        print(line, file=sys.stderr if args.json else sys.stdout)
    return 0 if comparison.passed else 1


def weight_file(args: argparse.Namespace, golden: Trace) -> Path | None:
    """Where --weights says that the trace's are; InputError for others."""
    if args.weights is None:
        return None
    check_weights(golden, Path(args.weights))
    return Path(args.weights)


def against(args: argparse.Namespace) -> int:
    """A live model of transformers, observed with hooks, against a trace; 16 bits do not train."""
    from minibert.verify.transformers_run import UNTRAINED, run_transformers

    golden = open_trace(args.golden)
    setup = setup_of(golden, weight_file(args, golden))
    theirs = run_transformers(setup, args.dtype or "float64", args.attention)
    if args.dtype in UNTRAINED:
        print(f"training/ is left out: not done in {args.dtype}", file=sys.stderr)
    return report(args, golden, theirs, "float64")


def budget(args: argparse.Namespace) -> int:
    """What float32 loses against float64, tensor by tensor, in NumPy and PyTorch; the tolerance."""
    golden = open_trace(args.golden)
    stored, weights = read_pytorch(golden), weight_file(args, golden)
    if stored is not None:
        errors, versions = stored
    elif has_pytorch():
        errors = measure_pytorch(golden, setup_of(golden, weights))
        versions = {"PyTorch": "measured now"}
    else:
        errors, versions = {}, {"PyTorch": "not installed, not measured"}
    rows = budget_table(golden, errors)
    if args.json:
        print(json.dumps({"pytorch": versions, "tensors": rows}, indent=1))
        return 0
    width = max(len(row["name"]) for row in rows)
    print(f"{'relative error in float32':<{width}}  {'NumPy':>7}  {'PyTorch':>7}   budget")
    for row in rows:
        numbers = (row[column] for column in ("numpy", "pytorch", "budget"))
        cells = (f"{'–' if number is None else f'{number:.1e}':>7}" for number in numbers)
        print(f"{row['name']:<{width}}  {'  '.join(cells)}")
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return 0


def certify(args: argparse.Namespace) -> int:
    """Every gradient of every layer and head, in every precision at hand, as a Markdown table."""
    from minibert.verify.certificate import certificate, markdown

    result = certificate(lambda line: print(line, file=sys.stderr) if args.verbose else None)
    print(json.dumps(result, indent=1) if args.json else markdown(result))
    return 0 if all(row["passed"] for row in result["rows"]) else 1


def _help(command) -> dict[str, str]:
    text = inspect.getdoc(command) or ""
    return {"description": text, "help": text}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    made = commands.add_parser("trace", **_help(trace))
    made.set_defaults(command=trace)
    made.add_argument(
        "standard",
        nargs="?",
        choices=STANDARD,
        metavar="NAME",
        help=f"a standard trace: {', '.join(STANDARD)}",
    )
    made.add_argument(
        "--pytorch", action="store_true",
        help="also write PyTorch's float32 errors, to NAME.pytorch.json (needs the [crosscheck] "
        "extra)",
    )  # fmt: skip
    made.add_argument(
        "--output", metavar="PATH", help="without a suffix (default the trace's name)"
    )
    inputs.add_arguments(made, HEADS)

    files = commands.add_parser("compare", **_help(compare_files))
    files.set_defaults(command=compare_files)
    files.add_argument("mine", metavar="MINE", help=".safetensors or .npz")
    files.add_argument("golden", metavar="GOLDEN", help="a trace, or nano")
    files.add_argument(
        "--map", metavar="FILE", help="JSON: your names → the trace's; null leaves a tensor out"
    )

    live = commands.add_parser("against", **_help(against))
    live.set_defaults(command=against)
    live.add_argument(
        "framework", choices=("transformers",), metavar="FRAMEWORK", help="transformers"
    )
    live.add_argument(
        "golden", metavar="GOLDEN", nargs="?", default="nano", help="a trace (default nano)"
    )
    live.add_argument(
        "--attention", choices=("eager", "sdpa"), default="eager", help="(default eager)"
    )

    errors = commands.add_parser("budget", **_help(budget))
    errors.set_defaults(command=budget)
    errors.add_argument(
        "golden", metavar="GOLDEN", nargs="?", default="nano", help="a trace (default nano)"
    )

    certified = commands.add_parser("certify", **_help(certify))
    certified.set_defaults(command=certify)
    certified.add_argument("--verbose", action="store_true", help="each line as it is done")

    for command in (files, live, errors):
        command.add_argument(
            "--weights", metavar="FILE", help="the weight file, where the trace only names it"
        )
    for command in (files, live):
        command.add_argument("--dtype", choices=UNIT, help="whose budgets apply")
        command.add_argument("--only-out", action="store_true", help="print only what is out")
        command.add_argument("--no-diagnosis", action="store_true", help="do not look for a cause")
    for command in (files, live, errors, certified):
        command.add_argument("--json", action="store_true", help="the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
