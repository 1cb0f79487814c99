"""ablation-d5: the 2^3 and the stages at d=5."""

from syndistill.ablation.plans import ablation_d5 as plan

__all__ = ["plan"]
