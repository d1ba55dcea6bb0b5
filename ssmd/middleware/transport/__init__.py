"""Publish, consume and subscribe: NATS JetStream or memory."""
