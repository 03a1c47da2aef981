"""Adapters by name in this process: uploads and other changes, what a name means, contents at hand."""
