"""Weights and assets on disk, in openpi's layout."""
