"""One module for each family of routes: shape in, call, shape out."""
