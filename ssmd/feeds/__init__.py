"""Exchanges: one folder each, chosen by name and date in the catalogue."""
