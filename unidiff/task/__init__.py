"""What a recipe can ask for: one file a kind, each with its report."""
