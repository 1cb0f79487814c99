"""What a Teacher says: its answers, standardised and adapted features, and z_fuse."""
