"""The tables of an index: written whole or not at all, read as published, verified and maintained."""
