"""Samples and scores in, pictures out: spectrogram tiles, and figures with score curves."""
