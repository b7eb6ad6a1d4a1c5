"""The paged K/V cache: block pool, block tables, storage."""
