"""Windows and texts in, embeddings out. It runs with torch, transformers and numpy alone."""
