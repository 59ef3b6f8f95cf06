"""The rows of the published classification tables: norms, and twins at digits scale."""

# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {}

# At full scale → at digits scale.
TWINS: dict[str, str] = {}

# What may differ between the two, by patterns on dotted names.
WHITELIST: tuple[str, ...] = ()
