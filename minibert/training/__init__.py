"""The training loop and what it stands on: arguments, evaluation, state, diagnosis."""
