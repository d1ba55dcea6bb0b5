"""The outside behind protocols: transport and storage."""
