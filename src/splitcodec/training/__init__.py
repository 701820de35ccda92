"""Room `training`: recipe -> trained student -> bundle."""
