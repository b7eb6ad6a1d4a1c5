"""What drafts for a target where nobody names a drafter: what is on this disk, and what is public."""
