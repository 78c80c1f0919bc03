"""Hits and marks as files for other programs: tables, labels, cut audio, vectors. See the README."""
