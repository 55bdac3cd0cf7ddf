"""The command ``wsi-seg``: parses, calls one library function, prints."""
