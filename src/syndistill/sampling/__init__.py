"""Shots: simulated, recorded, stored; the one border between numpy and torch."""
