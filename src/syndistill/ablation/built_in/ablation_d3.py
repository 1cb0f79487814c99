"""ablation-d3: every arm at one budget, the primary ones at three."""

from syndistill.ablation.plans import ablation_d3 as plan

__all__ = ["plan"]
