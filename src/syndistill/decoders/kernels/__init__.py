"""Compiled code of flat and local GRUs: their weights as arrays, packed as the code reads them, and the code."""
