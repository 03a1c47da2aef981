"""From queued inputs to outputs: tokens, turns, batches, slots, merges. One object outside: `engine.Engine`."""
