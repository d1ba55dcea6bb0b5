"""Questions in words about markets: a fixed grammar over the security master. What it does not know, it says."""
