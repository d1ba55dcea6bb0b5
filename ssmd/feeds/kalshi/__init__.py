"""Kalshi: session, frame mapper and REST client."""
