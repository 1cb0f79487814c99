"""One loop for Teacher and Student: optimiser, schedule, curriculum, EMA, exact resume."""
