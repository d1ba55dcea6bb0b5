"""One module per form the data takes: raw lines, Cap'n Proto, client JSON."""
