"""The command line of Earshot; ``jobs/README.md`` is its reference."""
