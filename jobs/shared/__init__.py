"""What the commands share: what they print, and how they talk to a cluster."""
