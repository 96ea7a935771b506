"""The training loop, plain PyTorch on one worker or many."""
