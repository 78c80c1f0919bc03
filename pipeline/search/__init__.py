"""Questions in, ranked clips and events out."""
