"""The bundled model: its synthetic sounds, its training and its exam."""
