"""Room `training`: recipe -> trained student -> bundle."""

import logging

# Fabric tells of the precision that the recipe asked it for; what matters comes as a warning.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
