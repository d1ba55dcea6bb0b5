"""Speed, measured: every path beside its limit and a naive baseline, in one run (`make bench`)."""
