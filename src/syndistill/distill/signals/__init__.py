"""What a Teacher says, from its answer to what a Student is held against: standardised, adapted, fused."""
