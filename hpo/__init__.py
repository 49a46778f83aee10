"""hpo: hyperparameter optimization for PyTorch."""
