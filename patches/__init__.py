"""Patch files for clones of the original trainers, the code that applies them, and the script that makes them."""
