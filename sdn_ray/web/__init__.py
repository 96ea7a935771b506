"""What every page of ours is served by: who may ask, how much, and nothing from other hosts."""
