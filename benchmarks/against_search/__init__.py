"""Small tasks of many kinds: the default, nothing set, against the best of 18 AdamW runs."""
