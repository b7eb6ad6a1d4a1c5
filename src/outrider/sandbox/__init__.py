"""Work that a model or a client can make endless, done in processes that can be killed."""
