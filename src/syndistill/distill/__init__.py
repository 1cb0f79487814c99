"""Distillation: what the Teacher says, how a Student is held against it, and the stages' objectives."""
