"""Whole objects in buckets: S3, a folder or memory."""
