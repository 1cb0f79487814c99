"""ablation-tiny: a toy of minutes."""

from syndistill.ablation.plans import ablation_tiny as plan

__all__ = ["plan"]
