"""The forward pass on a CPU."""
