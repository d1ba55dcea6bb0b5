"""Secrets: where they are stored and how a reference becomes a value."""
