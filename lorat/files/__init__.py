"""An adapter's files: read with every check, written so that PEFT opens them."""
