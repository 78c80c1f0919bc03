"""``earshot bench``, and ``python -m jobs.bench``: how fast this machine decodes, encodes and writes."""
