"""Which files there are, and what is said of them. Nothing here opens audio."""
