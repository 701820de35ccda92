"""Room `model`: teacher, student, prior, task heads. PyTorch lives here and in `training`, nowhere else."""
