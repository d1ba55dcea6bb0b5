"""Append-only logs of what changed, one per topic: NATS JetStream, files or memory."""
