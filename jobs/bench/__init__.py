"""The figures of ``earshot bench``, and the measurements of ``python -m jobs.bench NAME``."""
