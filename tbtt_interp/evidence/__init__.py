"""What the sweeps say: tables over many runs, questions put to them, and claims with verdicts."""
