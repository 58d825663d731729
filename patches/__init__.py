"""Patch files for clones of the original trainers (data), and the script that makes them."""
