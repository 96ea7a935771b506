"""What a search varies, its Optuna study, one trial, reports, and the paper's Table 3."""
