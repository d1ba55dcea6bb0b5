"""What an environment file says."""
