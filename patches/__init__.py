"""Patch files for clones of the original trainers, what applies them, and the script that makes them."""
