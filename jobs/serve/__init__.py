"""``earshot serve``: the page of an index, and its HTTP API."""
