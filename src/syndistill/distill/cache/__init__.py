"""A Teacher's answers, kept, and the batches that are made of them."""
