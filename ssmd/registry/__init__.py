"""The metadata database: feeds, markets, inventory, gaps, issues."""
