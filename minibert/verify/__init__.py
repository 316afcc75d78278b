"""Proofs and comparison.

Proofs: numerical derivatives (derivatives, layer_cases, model_cases, gradcheck, coverage) and the
certificate over all of them. Comparison: golden traces (trace/), somebody's tensors against one
(names, compare, report), the likely cause (hypotheses/, diagnosis), the errors allowed (budget,
budget_table), a live model of transformers (transformers_run).
"""
