"""An exchange process that speaks Kalshi's protocol, for the demo and for tests."""
