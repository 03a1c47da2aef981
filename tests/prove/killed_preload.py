"""What the fork server has before it forks: imports, and what transformers works out once a process (0.4 s)."""

import pytest  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import tests.prove.killed_server  # noqa: F401

get_checkpoint_conversion_mapping("bert")
