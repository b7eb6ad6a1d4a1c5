"""Weight formats: how the numbers of a matrix are stored, in files and in memory."""
