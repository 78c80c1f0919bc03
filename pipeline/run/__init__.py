"""One run: corpus, plan, workers, commits."""
