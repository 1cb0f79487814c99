"""The command line; `main` is its door."""
