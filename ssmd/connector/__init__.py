"""Exchange frames to the raw archive and the live stream."""
