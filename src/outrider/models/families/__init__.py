"""What each family of models is made of: a function from settings to a tree of parts a file."""
