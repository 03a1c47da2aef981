"""Side-by-side measurements: each is one command that writes its raw numbers to `results/`."""
