"""Pure numbers: intervals, calibration, paired seeds. Knows what no number is about, and imports nothing but errors."""
