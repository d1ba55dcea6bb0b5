"""Pages about the quality of each day, for reviewers: made into storage, readable from any copy of it."""
