"""Codes, noise models and memory circuits; where each detector sits. Knows no torch."""
