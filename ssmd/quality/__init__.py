"""Is the archive what the inventory says?"""
