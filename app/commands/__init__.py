"""The commands of `lorat`, by what they are about."""
