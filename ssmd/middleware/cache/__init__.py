"""The cache server of an environment."""
