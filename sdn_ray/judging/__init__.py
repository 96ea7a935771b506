"""The human study of the paper's Table 2: its materials, trials, answers, page and report."""
