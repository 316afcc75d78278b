"""Talking to the outside: files replaced atomically, JSON, progress, the command line."""
