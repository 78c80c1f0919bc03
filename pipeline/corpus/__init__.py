"""Which files a corpus has, and their metadata. Nothing here opens audio."""
