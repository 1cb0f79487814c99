"""The built-in plans, one a file, each with a function `plan()`: what a plan file of one's own looks like."""
