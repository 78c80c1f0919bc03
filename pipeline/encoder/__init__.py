"""Windows and texts in, embeddings out."""
