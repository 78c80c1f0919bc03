"""What to do with each file: the corpus and the ledger in, batches out."""
