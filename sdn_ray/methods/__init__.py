"""Methods that train a generator, and the loop of them all: plain PyTorch, one worker or many."""
