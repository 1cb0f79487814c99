"""Networks: shared blocks, the Teacher, the Students, saving and loading. Knows no losses."""
