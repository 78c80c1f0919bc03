"""What to do with each file: the corpus and the ledger in, batches out.

Read in this order: ``request`` (what a person asks), ``ledger`` (what the index has), ``decide`` and ``hashing`` (what
happens to each file), ``plan`` (the result), ``batches`` (the portions of work), ``guard`` (which
deletions a run refuses), ``file_rows`` (the resulting rows of ``files``).
"""
