"""The bytes of a file in, windows of samples on the time grid out, or the reason why there are none."""
