"""The networks, and the file that carries them."""
