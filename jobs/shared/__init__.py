"""Code of several commands: options, output, runs, errors, and the talk with a cluster."""
