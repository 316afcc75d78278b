"""Proofs: numerical derivatives of every layer against its backward."""
