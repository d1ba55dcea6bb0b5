"""The live stream and the metadata for bots, dashboards and people."""
