"""The forward pass on a GPU: planned on the host, sent in one copy, answered in one copy, nothing waited for between.

`plan` → `stage` (one pinned copy) → `encoder`, eager or as a captured graph of its `buckets` → `answers` → host.
"""
