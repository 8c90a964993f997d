"""What a model is told of its data in training: the recipe's `conditioning` section."""
