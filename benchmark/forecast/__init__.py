"""`bench plan`: what a run would encode, and how long it would take."""
