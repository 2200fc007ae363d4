"""What an ESGF node says of itself."""
