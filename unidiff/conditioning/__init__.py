"""The conditions of a model in training: the recipe's `conditioning` section."""
