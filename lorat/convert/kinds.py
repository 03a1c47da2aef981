"""The kinds of source that can be converted."""

KINDS = {
    "lorat": "a state dict of the original LoRAT class",
    "loralib": "a state dict of loralib's Linear layers",
    "full": "a model's directory, of transformers or sentence-transformers",
}
